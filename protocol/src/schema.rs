//! `schema!`: a table of fields with their versions becomes a struct that encodes and decodes
//! itself.
//!
//! ```text
//! schema! {
//!     /// A partition exists.
//!     pub struct PartitionRecord 0..=2, flexible 0 {
//!         partition_id: i32 = -1,                          // in every version
//!         directories: Vec<Uuid> [1..],                    // from version 1 on
//!         leader_recovery_state: i8 [0.., tag 0],          // tagged: written if not the default
//!         last_known_elr: Option<Vec<i32>> [2.., tag 2],   // an Option is nullable
//!     }
//! }
//! ```
//!
//! As in Kafka's generator:
//! - `= value` is the default (else the type's own); a field takes it where the version lacks it.
//! - From version `flexible` on sizes are varints, and a struct ends with tagged fields. Those we do
//!   not know are skipped, those at their default are not written. They are written in the order of
//!   their tags, wherever they are declared.
//! - Encoding a field that is not at its default in a version that lacks it is an error, since the
//!   value would be lost; `[1..; ignorable]` says that it may be.
//! - As JSON a struct has the fields of its version, without tagged ones that are at their default.
//! - Decoding refuses arrays of more than a million elements and reserves memory for at most a
//!   thousand before it has seen them.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::{error::DecodeError, json::Json, varint};

/// Tags are smaller than this.
pub(crate) const TAGS: u32 = 16;

const ELEMENTS_MAX: usize = 1_000_000;
const RESERVED_MAX: usize = 1_000;

/// Why a message cannot be written in a version. It is a fault of ours, never of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    reason: String,
}

impl EncodeError {
    pub(crate) fn new(reason: impl Into<String>) -> EncodeError {
        EncodeError {
            reason: reason.into(),
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for EncodeError {}

/// Which form of a message is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) version: i16,
    pub(crate) flexible: bool,
}

/// A place in an answer where bytes of a file go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The offset in [`crate::response::Encoded::head`] before which they go.
    pub at: usize,
    /// Which of the caller's file ranges it is: the number given in [`crate::fetch::Records::File`].
    pub index: usize,
    /// How many bytes; at least 1.
    pub size: usize,
}

/// Bytes being written. Holes are where bytes of a file go that are not read for it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    pub(crate) holes: Vec<Hole>,
}

impl Output {
    /// A size or count in front of what it measures; null is `None`. `width` is 2 or 4, the bytes
    /// it takes where it is not a varint.
    pub(crate) fn put_size(
        &mut self,
        form: Form,
        width: usize,
        size: Option<usize>,
    ) -> Result<(), EncodeError> {
        let too_large = || EncodeError::new(format!("{} does not fit a size", size.unwrap_or(0)));
        if form.flexible {
            let size = size.map_or(Ok(0), |size| {
                i32::try_from(size).map(|size| size.unsigned_abs() + 1)
            });
            varint::put_unsigned(&mut self.bytes, size.map_err(|_| too_large())?);
        } else if width == 2 {
            let size = size.map_or(Ok(-1), i16::try_from);
            self.bytes.put_i16(size.map_err(|_| too_large())?);
        } else {
            let size = size.map_or(Ok(-1), i32::try_from);
            self.bytes.put_i32(size.map_err(|_| too_large())?);
        }
        Ok(())
    }

    /// Tag, size and value of a tagged field.
    pub(crate) fn put_tagged(
        &mut self,
        tag: u32,
        value: &impl Field,
        form: Form,
    ) -> Result<(), EncodeError> {
        varint::put_unsigned(&mut self.bytes, tag);
        // The size is known when the value is written, and then brought before it.
        let start = self.bytes.len();
        value.write_tagged(self, form)?;
        let end = self.bytes.len();
        let size =
            u32::try_from(end - start).map_err(|_| EncodeError::new("a tagged field of 4 GiB"))?;
        varint::put_unsigned(&mut self.bytes, size);
        let width = self.bytes.len() - end;
        self.bytes[start..].rotate_right(width);
        Ok(())
    }
}

/// A type that fields can have.
pub(crate) trait Field: Sized {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError>;
    fn read(input: &mut Bytes, form: Form) -> Result<Self, DecodeError>;

    /// As the value of a tagged field, where structs that may be null have another form.
    fn write_tagged(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        self.write(out, form)
    }
    fn read_tagged(input: &mut Bytes, form: Form) -> Result<Self, DecodeError> {
        Self::read(input, form)
    }

    /// What a tool shows of it: the fields that this version has.
    fn json(&self, form: Form) -> Json;
}

macro_rules! fixed {
    ($($ty:ty: $put:ident $take:ident,)*) => {
        $(impl Field for $ty {
            fn write(&self, out: &mut Output, _: Form) -> Result<(), EncodeError> {
                out.bytes.$put(*self);
                Ok(())
            }
            fn read(input: &mut Bytes, _: Form) -> Result<$ty, DecodeError> {
                input.$take().map_err(|_| ends_early())
            }
            fn json(&self, _: Form) -> Json {
                Json::from(*self)
            }
        })*
    };
}

fixed! {
    i8: put_i8 try_get_i8,
    i16: put_i16 try_get_i16,
    u16: put_u16 try_get_u16,
    i32: put_i32 try_get_i32,
    i64: put_i64 try_get_i64,
    f64: put_f64 try_get_f64,
}

impl Field for bool {
    fn write(&self, out: &mut Output, _: Form) -> Result<(), EncodeError> {
        out.bytes.put_u8((*self).into());
        Ok(())
    }
    fn read(input: &mut Bytes, _: Form) -> Result<bool, DecodeError> {
        Ok(input.try_get_u8().map_err(|_| ends_early())? != 0)
    }
    fn json(&self, _: Form) -> Json {
        Json::from(*self)
    }
}

impl Field for Uuid {
    fn write(&self, out: &mut Output, _: Form) -> Result<(), EncodeError> {
        out.bytes.put_slice(self.as_bytes());
        Ok(())
    }
    fn read(input: &mut Bytes, _: Form) -> Result<Uuid, DecodeError> {
        input
            .try_get_u128()
            .map(Uuid::from_u128)
            .map_err(|_| ends_early())
    }
    fn json(&self, _: Form) -> Json {
        Json::from(*self)
    }
}

impl Field for Option<StrBytes> {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        put_str(out, form, self.as_deref())
    }
    fn read(input: &mut Bytes, form: Form) -> Result<Option<StrBytes>, DecodeError> {
        let Some(bytes) = read_slice(input, form, 2)? else {
            return Ok(None);
        };
        StrBytes::from_utf8(bytes)
            .map(Some)
            .map_err(|_| DecodeError::new("a string is not UTF-8"))
    }
    fn json(&self, _: Form) -> Json {
        self.clone().map_or(Json::Null, Json::from)
    }
}

impl Field for StrBytes {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        put_str(out, form, Some(self))
    }
    fn read(input: &mut Bytes, form: Form) -> Result<StrBytes, DecodeError> {
        Option::<StrBytes>::read(input, form)?.ok_or_else(unexpected_null)
    }
    fn json(&self, _: Form) -> Json {
        Json::from(self.clone())
    }
}

impl Field for Option<String> {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        put_str(out, form, self.as_deref())
    }
    fn read(input: &mut Bytes, form: Form) -> Result<Option<String>, DecodeError> {
        Ok(Option::<StrBytes>::read(input, form)?.map(|string| string.as_str().to_owned()))
    }
    fn json(&self, _: Form) -> Json {
        self.clone().map_or(Json::Null, Json::from)
    }
}

impl Field for String {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        put_str(out, form, Some(self))
    }
    fn read(input: &mut Bytes, form: Form) -> Result<String, DecodeError> {
        Option::<String>::read(input, form)?.ok_or_else(unexpected_null)
    }
    fn json(&self, _: Form) -> Json {
        Json::from(self.clone())
    }
}

impl Field for Option<Bytes> {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        out.put_size(form, 4, self.as_ref().map(Bytes::len))?;
        out.bytes.put_slice(self.as_deref().unwrap_or_default());
        Ok(())
    }
    fn read(input: &mut Bytes, form: Form) -> Result<Option<Bytes>, DecodeError> {
        read_slice(input, form, 4)
    }
    fn json(&self, _: Form) -> Json {
        self.clone().map_or(Json::Null, Json::from)
    }
}

impl Field for Bytes {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        out.put_size(form, 4, Some(self.len()))?;
        out.bytes.put_slice(self);
        Ok(())
    }
    fn read(input: &mut Bytes, form: Form) -> Result<Bytes, DecodeError> {
        read_slice(input, form, 4)?.ok_or_else(unexpected_null)
    }
    fn json(&self, _: Form) -> Json {
        Json::from(self.clone())
    }
}

impl<T: Field> Field for Vec<T> {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        out.put_size(form, 4, Some(self.len()))?;
        self.iter().try_for_each(|element| element.write(out, form))
    }
    fn read(input: &mut Bytes, form: Form) -> Result<Vec<T>, DecodeError> {
        Option::<Vec<T>>::read(input, form)?.ok_or_else(unexpected_null)
    }
    fn json(&self, form: Form) -> Json {
        Json::Array(self.iter().map(|element| element.json(form)).collect())
    }
}

impl<T: Field> Field for Option<Vec<T>> {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        match self {
            None => out.put_size(form, 4, None),
            Some(elements) => elements.write(out, form),
        }
    }
    fn read(input: &mut Bytes, form: Form) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = read_size(input, form, 4)? else {
            return Ok(None);
        };
        // An element takes at least a byte.
        if count > ELEMENTS_MAX || count > input.len() {
            return Err(DecodeError::new(format!(
                "{count} elements claimed, {} bytes left",
                input.len()
            )));
        }
        let mut elements = Vec::with_capacity(count.min(RESERVED_MAX));
        for _ in 0..count {
            elements.push(T::read(input, form)?);
        }
        Ok(Some(elements))
    }
    fn json(&self, form: Form) -> Json {
        let elements = self.as_ref();
        elements.map_or(Json::Null, |elements| elements.json(form))
    }
}

fn put_str(out: &mut Output, form: Form, string: Option<&str>) -> Result<(), EncodeError> {
    let size = string.map(str::len);
    if size > Some(i16::MAX as usize) {
        return Err(EncodeError::new("a string is longer than 32767 bytes"));
    }
    out.put_size(form, 2, size)?;
    out.bytes.put_slice(string.unwrap_or_default().as_bytes());
    Ok(())
}

pub(crate) fn read_slice(
    input: &mut Bytes,
    form: Form,
    width: usize,
) -> Result<Option<Bytes>, DecodeError> {
    match read_size(input, form, width)? {
        None => Ok(None),
        Some(size) if size > input.len() => Err(ends_early()),
        Some(size) => Ok(Some(input.split_to(size))),
    }
}

fn read_size(input: &mut Bytes, form: Form, width: usize) -> Result<Option<usize>, DecodeError> {
    let size = if form.flexible {
        i64::from(read_varint(input)?) - 1
    } else if width == 2 {
        i64::from(i16::read(input, form)?)
    } else {
        i64::from(i32::read(input, form)?)
    };
    match size {
        -1 => Ok(None),
        size => usize::try_from(size)
            .map(Some)
            .map_err(|_| DecodeError::new(format!("size {size}"))),
    }
}

pub(crate) fn read_varint(input: &mut Bytes) -> Result<u32, DecodeError> {
    varint::unsigned(|| input.try_get_u8().map_err(|_| ends_early()))
}

/// Takes tags, sizes and values; `known` takes the value of those it knows and says so.
pub(crate) fn read_tagged_fields(
    input: &mut Bytes,
    mut known: impl FnMut(u32, &mut Bytes) -> Result<bool, DecodeError>,
) -> Result<(), DecodeError> {
    for _ in 0..read_varint(input)? {
        let tag = read_varint(input)?;
        let size = read_varint(input)? as usize;
        if size > input.len() {
            return Err(ends_early());
        }
        let mut value = input.split_to(size);
        if known(tag, &mut value)? && !value.is_empty() {
            return Err(DecodeError::new(format!(
                "tagged field {tag} is shorter than it says"
            )));
        }
    }
    Ok(())
}

fn ends_early() -> DecodeError {
    DecodeError::new("the message ends inside a field")
}

fn unexpected_null() -> DecodeError {
    DecodeError::new("a field is null that must not be")
}

macro_rules! schema {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident $versions:expr, flexible $flexible:literal {
            $(
                $(#[$field_meta:meta])*
                $field:ident: $ty:ty
                $([$range:expr $(, tag $tag:literal)? $(; $ignorable:ident)?])?
                $(= $default:expr)?,
            )*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $($(#[$field_meta])* $vis $field: $ty,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $crate::schema::schema!(@default $($default)?),)* }
            }
        }

        impl $name {
            /// The versions this can be written in.
            #[allow(dead_code, reason = "a struct inside another goes by the outer one's")]
            $vis const VERSIONS: std::ops::RangeInclusive<i16> = $versions;

            /// The message's form in a version.
            #[allow(dead_code, reason = "a struct inside another takes the outer one's form")]
            pub(crate) fn form(version: i16) -> $crate::schema::Form {
                $crate::schema::Form { version, flexible: version >= $flexible }
            }
        }

        impl $crate::schema::Field for $name {
            #[allow(unused_mut, unused_variables, reason = "not every table has tagged fields, or any")]
            fn write(
                &self,
                out: &mut $crate::schema::Output,
                form: $crate::schema::Form,
            ) -> Result<(), $crate::schema::EncodeError> {
                let default = $name::default();
                let mut tagged = 0;
                $(
                    if $crate::schema::schema!(@within form $($range)?) {
                        $crate::schema::schema!(
                            @put self.$field, default.$field, out, form, tagged $($(tag $tag)?)?
                        );
                    } else {
                        $crate::schema::schema!(
                            @lost self.$field, default.$field, form, $name, $field $($(, $ignorable)?)?
                        );
                    }
                )*
                $($($(const { assert!($tag < $crate::schema::TAGS) };)?)?)*
                if form.flexible {
                    $crate::varint::put_unsigned(&mut out.bytes, tagged);
                    for next in 0..$crate::schema::schema!(@tags tagged) {
                        $($($(
                            if next == $tag
                                && $range.contains(&form.version)
                                && self.$field != default.$field
                            {
                                out.put_tagged($tag, &self.$field, form)?;
                            }
                        )?)?)*
                    }
                }
                Ok(())
            }

            #[allow(unused_mut, unused_variables, reason = "not every table has tagged fields, or any")]
            fn read(
                input: &mut bytes::Bytes,
                form: $crate::schema::Form,
            ) -> Result<$name, $crate::error::DecodeError> {
                let mut message = $name::default();
                $(
                    if $crate::schema::schema!(@within form $($range)?) {
                        $crate::schema::schema!(@take message.$field, input, form $($(tag $tag)?)?);
                    }
                )*
                if form.flexible {
                    $crate::schema::read_tagged_fields(input, |tag, value| {
                        $($($(
                            if tag == $tag && $range.contains(&form.version) {
                                message.$field = $crate::schema::Field::read_tagged(value, form)?;
                                return Ok(true);
                            }
                        )?)?)*
                        Ok(false)
                    })?;
                }
                Ok(message)
            }

            #[allow(unused_mut, unused_variables, reason = "not every table has fields")]
            fn json(&self, form: $crate::schema::Form) -> $crate::json::Json {
                let default = $name::default();
                let mut members = Vec::new();
                $(
                    if $crate::schema::schema!(@within form $($range)?)
                        && $crate::schema::schema!(
                            @shown self.$field, default.$field $($(, tag $tag)?)?
                        )
                    {
                        let name = $crate::json::camel(stringify!($field));
                        members.push((name, $crate::schema::Field::json(&self.$field, form)));
                    }
                )*
                $crate::json::Json::Object(members)
            }
        }

        /// A struct that may be null has a byte in front that says whether it is there.
        impl $crate::schema::Field for Option<$name> {
            fn write(
                &self,
                out: &mut $crate::schema::Output,
                form: $crate::schema::Form,
            ) -> Result<(), $crate::schema::EncodeError> {
                $crate::schema::Field::write(&if self.is_some() { 1i8 } else { -1 }, out, form)?;
                self.iter().try_for_each(|message| message.write(out, form))
            }

            fn read(
                input: &mut bytes::Bytes,
                form: $crate::schema::Form,
            ) -> Result<Option<$name>, $crate::error::DecodeError> {
                let present: i8 = $crate::schema::Field::read(input, form)?;
                (present >= 0).then(|| $crate::schema::Field::read(input, form)).transpose()
            }

            fn write_tagged(
                &self,
                out: &mut $crate::schema::Output,
                form: $crate::schema::Form,
            ) -> Result<(), $crate::schema::EncodeError> {
                $crate::varint::put_unsigned(&mut out.bytes, u32::from(self.is_some()));
                self.iter().try_for_each(|message| message.write(out, form))
            }

            fn read_tagged(
                input: &mut bytes::Bytes,
                form: $crate::schema::Form,
            ) -> Result<Option<$name>, $crate::error::DecodeError> {
                let present = $crate::schema::read_varint(input)?;
                (present > 0).then(|| $crate::schema::Field::read(input, form)).transpose()
            }

            fn json(&self, form: $crate::schema::Form) -> $crate::json::Json {
                let message = self.as_ref();
                message.map_or($crate::json::Json::Null, |message| message.json(form))
            }
        }
    )*};

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };

    (@within $form:ident) => { true };
    (@within $form:ident $range:expr) => { $range.contains(&$form.version) };

    (@put $value:expr, $default:expr, $out:ident, $form:ident, $tagged:ident) => {
        $crate::schema::Field::write(&$value, $out, $form)?
    };
    (@put $value:expr, $default:expr, $out:ident, $form:ident, $tagged:ident tag $tag:literal) => {
        $tagged += u32::from($value != $default)
    };

    // Most structs have none to write.
    (@tags $tagged:ident) => { if $tagged == 0 { 0 } else { $crate::schema::TAGS } };

    (@shown $value:expr, $default:expr) => { true };
    (@shown $value:expr, $default:expr, tag $tag:literal) => { $value != $default };

    (@take $value:expr, $input:ident, $form:ident) => {
        $value = $crate::schema::Field::read($input, $form)?
    };
    (@take $value:expr, $input:ident, $form:ident tag $tag:literal) => {};

    (@lost $value:expr, $default:expr, $form:ident, $name:ident, $field:ident) => {
        if $value != $default {
            return Err($crate::schema::EncodeError::new(format!(
                "{} version {} has no {}",
                stringify!($name),
                $form.version,
                stringify!($field),
            )));
        }
    };
    (@lost $value:expr, $default:expr, $form:ident, $name:ident, $field:ident, ignorable) => {};
}

pub(crate) use schema;

/// Reads a whole message; bytes after it are an error.
pub(crate) fn decode<T: Field>(mut input: Bytes, form: Form) -> Result<T, DecodeError> {
    let message = T::read(&mut input, form)?;
    match input.len() {
        0 => Ok(message),
        extra => Err(DecodeError::new(format!(
            "{extra} bytes follow the message"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    schema! {
        struct Outer 0..=3, flexible 2 {
            name: String,
            count: i32 [1..] = 7,
            gone: bool [0..=1; ignorable],
            inner: Vec<Inner>,
            note: Option<String> [2.., tag 0],
            number: i64 [3.., tag 5] = -1,
            before: i8 [3.., tag 3],
        }

        struct Inner 0..=3, flexible 2 {
            id: u16,
            data: Option<Bytes>,
        }
    }

    #[test]
    fn the_old_form_has_fixed_sizes_and_the_new_one_varints_and_tags() {
        let message = Outer {
            name: "ab".into(),
            gone: true,
            inner: vec![Inner { id: 1, data: None }],
            ..Outer::default()
        };
        check(
            &message,
            1,
            b"\0\x02ab\0\0\0\x07\x01\0\0\0\x01\0\x01\xff\xff\xff\xff",
        );

        let message = Outer {
            gone: false,
            note: Some("n".into()),
            number: 9,
            before: 6,
            ..message
        };
        check(
            &message,
            3,
            b"\x03ab\0\0\0\x07\x02\0\x01\0\0\x03\x00\x02\x02n\x03\x01\x06\x05\x08\0\0\0\0\0\0\0\x09",
        );
    }

    #[test]
    fn as_json_it_has_the_fields_of_its_version() {
        let message = Outer {
            name: "ab".into(),
            inner: vec![Inner { id: 1, data: None }],
            ..Outer::default()
        };
        let shown = |version| message.json(Outer::form(version)).to_string();
        let inner = "\"inner\":[{\"id\":1,\"data\":null}]";
        assert_eq!(
            shown(0),
            format!("{{\"name\":\"ab\",\"gone\":false,{inner}}}")
        );
        assert_eq!(shown(3), format!("{{\"name\":\"ab\",\"count\":7,{inner}}}"));
        let tagged = Outer {
            number: 5,
            ..message
        };
        let tagged = tagged.json(Outer::form(3)).to_string();
        assert!(tagged.ends_with(",\"number\":5}"), "{tagged}");
    }

    #[test]
    fn a_value_the_version_has_no_place_for_is_an_error_unless_it_may_be_lost() {
        let message = Outer {
            number: 1,
            ..Outer::default()
        };
        let refused = encode(&message, Outer::form(2)).unwrap_err();
        assert_eq!(refused.to_string(), "Outer version 2 has no number");
        let message = Outer {
            gone: true,
            ..Outer::default()
        };
        assert!(encode(&message, Outer::form(2)).is_ok());
    }

    #[test]
    fn unknown_tags_are_skipped_and_broken_ones_refused() {
        let take =
            |bytes: &'static [u8]| decode::<Inner>(Bytes::from_static(bytes), Inner::form(2));
        assert_eq!(
            take(b"\0\x01\0\x01\x63\x02xy"),
            Ok(Inner { id: 1, data: None })
        );
        assert!(take(b"\0\x01\0\x01\x63\x03xy").is_err());
        let outer = b"\x01\0\0\0\0\x01\x01\x00\x03\x02nx";
        assert!(decode::<Outer>(Bytes::from_static(outer), Outer::form(2)).is_err());
    }

    #[test]
    fn a_count_beyond_the_bytes_left_is_refused() {
        let bytes = Bytes::from_static(b"\x7f\xff\xff\xff\0");
        let form = Form {
            version: 0,
            flexible: false,
        };
        assert!(decode::<Vec<i8>>(bytes, form).is_err());
    }

    fn encode(message: &impl Field, form: Form) -> Result<Bytes, EncodeError> {
        let mut out = Output::default();
        message.write(&mut out, form)?;
        Ok(out.bytes.into())
    }

    #[track_caller]
    fn check(message: &Outer, version: i16, bytes: &'static [u8]) {
        assert_eq!(encode(message, Outer::form(version)).unwrap(), bytes);
        assert_eq!(
            decode::<Outer>(Bytes::from_static(bytes), Outer::form(version)).as_ref(),
            Ok(message)
        );
    }
}
