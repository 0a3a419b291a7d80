//! Keys and values as text (pure): what Kafka's own deserializers make of bytes, and Java prints of that.

use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deserializer {
    /// Bytes as they are.
    Raw,
    Short,
    Integer,
    Long,
}

impl Deserializer {
    /// By its Java class, with or without the package.
    pub(super) fn named(class: &str) -> Result<Deserializer, String> {
        let name = class.rsplit('.').next().unwrap_or(class);
        match name {
            "StringDeserializer" | "ByteArrayDeserializer" | "BytesDeserializer" => Ok(Self::Raw),
            "ShortDeserializer" => Ok(Self::Short),
            "IntegerDeserializer" => Ok(Self::Integer),
            "LongDeserializer" => Ok(Self::Long),
            _ => Err(format!(
                "{class}: Java classes cannot be loaded here; String-, Integer-, Long-, Short- and ByteArrayDeserializer are known"
            )),
        }
    }

    /// `Err` says what is wrong with the bytes.
    pub(super) fn text<'a>(self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let number = match self {
            Self::Raw => return Ok(Cow::Borrowed(bytes)),
            Self::Short => bytes
                .try_into()
                .map(|bytes| i16::from_be_bytes(bytes).to_string()),
            Self::Integer => bytes
                .try_into()
                .map(|bytes| i32::from_be_bytes(bytes).to_string()),
            Self::Long => bytes
                .try_into()
                .map(|bytes| i64::from_be_bytes(bytes).to_string()),
        };
        match number {
            Ok(number) => Ok(Cow::Owned(number.into_bytes())),
            Err(_) => Err(format!(
                "Size of data received by {self:?}Deserializer is {}",
                bytes.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_size_of_their_type() {
        let long = Deserializer::named("org.apache.kafka.common.serialization.LongDeserializer");
        let long = long.expect("known");
        assert_eq!(&*long.text(&7i64.to_be_bytes()).expect("eight bytes"), b"7");
        assert!(long.text(b"one").is_err());
        assert_eq!(
            &*Deserializer::Raw.text(b"\xff").expect("anything"),
            b"\xff"
        );
        assert!(Deserializer::named("my.Own").is_err());
    }
}
