//! Records that Kafka keeps in logs of its own.

pub mod control;
pub mod group;
pub mod metadata;
pub mod transaction;

use bytes::{BufMut, Bytes};

use crate::{
    error::DecodeError,
    schema::{EncodeError, Field, Form, Output},
};

/// Key and value of one of a coordinator's records as bytes. Used for one record after the other it
/// allocates no more: a coordinator writes hundreds in one batch.
#[derive(Debug, Default)]
pub struct Encoded {
    /// The key, and after it the value.
    out: Output,
    key_size: usize,
    is_tombstone: bool,
}

impl Encoded {
    pub fn key(&self) -> &[u8] {
        &self.out.bytes[..self.key_size]
    }

    /// `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        (!self.is_tombstone).then(|| &self.out.bytes[self.key_size..])
    }

    /// Both for themselves.
    pub fn to_bytes(&self) -> (Bytes, Option<Bytes>) {
        let value = self.value().map(Bytes::copy_from_slice);
        (Bytes::copy_from_slice(self.key()), value)
    }

    fn put<V: Field>(
        &mut self,
        (kind, key, key_form): (i16, &impl Field, Form),
        value: Option<(i16, &V, Form)>,
    ) -> Result<(), EncodeError> {
        self.out.bytes.clear();
        self.numbered(kind, key, key_form)?;
        self.key_size = self.out.bytes.len();
        self.is_tombstone = value.is_none();
        match value {
            None => Ok(()),
            Some((version, value, form)) => self.numbered(version, value, form),
        }
    }

    /// A key or value is a number, then fields. A key's number is the record's type, a value's its
    /// version.
    fn numbered(
        &mut self,
        number: i16,
        fields: &impl Field,
        form: Form,
    ) -> Result<(), EncodeError> {
        self.out.bytes.put_i16(number);
        fields.write(&mut self.out, form)
    }
}

fn number(bytes: &mut Bytes) -> Result<i16, DecodeError> {
    i16::read(
        bytes,
        Form {
            version: 0,
            flexible: false,
        },
    )
}

/// Declares an enum over the records of one coordinator's log: name, key and value types, and
/// Kafka's number for the type of record.
macro_rules! coordinator_records {
    ($(#[$meta:meta])* $enum:ident { $($variant:ident($key:ident, $value:ident) = $number:literal,)* }) => {
        $(#[$meta])*
        ///
        /// A record without a value is a tombstone: what the key names is gone.
        #[derive(Debug, Clone, PartialEq)]
        pub enum $enum {
            $($variant { key: $key, value: Option<$value> },)*
            /// A type of a later version. Kafka warns and passes over it.
            Unknown(i16),
        }

        impl $enum {
            /// Understands a record's key and value.
            pub fn decode(mut key: Bytes, value: Option<Bytes>) -> Result<$enum, DecodeError> {
                match $crate::records::number(&mut key)? {
                    $($number => {
                        let key = schema::decode(key, $key::form(0))?;
                        let value = match value {
                            None => None,
                            Some(mut value) => {
                                let version = $crate::records::number(&mut value)?;
                                if !$value::VERSIONS.contains(&version) {
                                    return Err(DecodeError::new(format!(
                                        "{} version {version} is not known", stringify!($value),
                                    )));
                                }
                                Some(schema::decode(value, $value::form(version))?)
                            }
                        };
                        Ok($enum::$variant { key, value })
                    })*
                    unknown => Ok($enum::Unknown(unknown)),
                }
            }

            /// Writes the record's key, and its value in `version`. Fails if there is no such
            /// version, a field is set that it lacks, or the type is unknown.
            pub fn encode(
                &self,
                version: i16,
                out: &mut $crate::records::Encoded,
            ) -> Result<(), EncodeError> {
                match self {
                    $($enum::$variant { key, value } => {
                        if !$value::VERSIONS.contains(&version) {
                            return Err(EncodeError::new(format!(
                                "there is no {} version {version}", stringify!($value),
                            )));
                        }
                        let value = value.as_ref().map(|value| (version, value, $value::form(version)));
                        out.put(($number, key, $key::form(0)), value)
                    })*
                    $enum::Unknown(number) => {
                        Err(EncodeError::new(format!("record type {number} is not known")))
                    }
                }
            }

            /// The same for one record alone.
            pub fn encoded(&self, version: i16) -> Result<(Bytes, Option<Bytes>), EncodeError> {
                let mut out = $crate::records::Encoded::default();
                self.encode(version, &mut out)?;
                Ok(out.to_bytes())
            }

            /// The number of the record's type.
            pub fn number(&self) -> i16 {
                match self {
                    $($enum::$variant { .. } => $number,)*
                    $enum::Unknown(number) => *number,
                }
            }

            /// The fields of its key, as tools show them.
            pub fn key_json(&self) -> Json {
                match self {
                    $($enum::$variant { key, .. } => key.json($key::form(0)),)*
                    $enum::Unknown(_) => Json::Null,
                }
            }

            /// The fields of its value, which is of this version; `None` for a tombstone.
            pub fn value_json(&self, version: i16) -> Option<Json> {
                match self {
                    $($enum::$variant { value, .. } => {
                        let value = value.as_ref()?;
                        Some(value.json($value::form(version)))
                    })*
                    $enum::Unknown(_) => None,
                }
            }

            /// The newest version of this type's value.
            pub fn latest_version(&self) -> i16 {
                match self {
                    $($enum::$variant { .. } => *$value::VERSIONS.end(),)*
                    $enum::Unknown(_) => 0,
                }
            }
        }

        #[cfg(test)]
        fn one_of_each() -> Vec<$enum> {
            vec![$(
                $enum::$variant { key: $key::default(), value: None },
                $enum::$variant { key: $key::default(), value: Some($value::default()) },
            )*]
        }
    };
}

use coordinator_records;
