//! Variable-length integers: seven bits a byte, least significant first.
//!
//! Record fields are zigzag-encoded (small negatives stay short), sizes and tags in flexible
//! messages are plain. As in Kafka's `ByteUtils`, bits of the last byte that do not fit are dropped,
//! and a continuation bit on the last byte that can have one is an error.

use bytes::BufMut;

/// The integer ran past the end of the input, or past its longest form.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Takes an unsigned varint (1 to 5 bytes) from `next`, which yields one byte at a time.
#[inline]
pub(crate) fn unsigned<E: From<Malformed>>(
    mut next: impl FnMut() -> Result<u8, E>,
) -> Result<u32, E> {
    let first = next()?;
    if first < 0x80 {
        return Ok(u32::from(first));
    }
    let mut value = u32::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let byte = next()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed.into())
}

/// Takes an unsigned varlong (1 to 10 bytes) from `next`.
#[inline]
pub(crate) fn unsigned_long<E: From<Malformed>>(
    mut next: impl FnMut() -> Result<u8, E>,
) -> Result<u64, E> {
    let mut value = 0;
    for shift in (0..=63).step_by(7) {
        let byte = next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed.into())
}

/// Undoes zigzag: 0, 1, 2, 3 stand for 0, -1, 1, -2.
#[inline]
pub(crate) fn signed(zigzag: u32) -> i32 {
    (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()
}

/// As [`signed`], for 64 bits.
#[inline]
pub(crate) fn signed_long(zigzag: u64) -> i64 {
    (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()
}

pub(crate) fn put_unsigned(out: &mut impl BufMut, value: u32) {
    put_unsigned_long(out, u64::from(value));
}

pub(crate) fn put_unsigned_long(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

pub(crate) fn put_signed(out: &mut impl BufMut, value: i32) {
    put_unsigned(out, ((value << 1) ^ (value >> 31)).cast_unsigned());
}

pub(crate) fn put_signed_long(out: &mut impl BufMut, value: i64) {
    put_unsigned_long(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// How many bytes [`put_unsigned_long`] writes.
pub(crate) fn unsigned_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// How many bytes [`put_signed_long`] (or, for the same value, [`put_signed`]) writes.
pub(crate) fn signed_size(value: i64) -> usize {
    unsigned_size(((value << 1) ^ (value >> 63)).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken_back_and_has_the_announced_size() {
        for bits in 0..64 {
            for value in [1i64 << bits, (1i64 << bits).wrapping_sub(1), -1i64 << bits] {
                let mut bytes = Vec::new();
                put_signed_long(&mut bytes, value);
                assert_eq!(bytes.len(), signed_size(value));
                assert_eq!(signed_long(unsigned_long(from(&bytes)).unwrap()), value);

                if let Ok(value) = i32::try_from(value) {
                    let mut bytes = Vec::new();
                    put_signed(&mut bytes, value);
                    assert_eq!(bytes.len(), signed_size(value.into()));
                    assert_eq!(signed(unsigned(from(&bytes)).unwrap()), value);
                }
            }
        }
    }

    #[test]
    fn an_endless_integer_is_refused() {
        assert!(unsigned(from(&[0xff; 5])).is_err());
        assert!(unsigned_long(from(&[0xff; 10])).is_err());
        assert!(unsigned(from(&[0xff; 3])).is_err());
    }

    fn from(bytes: &[u8]) -> impl FnMut() -> Result<u8, Malformed> {
        let mut bytes = bytes.iter();
        move || bytes.next().copied().ok_or(Malformed)
    }
}
