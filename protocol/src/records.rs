//! Records that Kafka keeps in logs of its own.

pub mod control;
pub mod group;
pub mod metadata;
pub mod transaction;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    error::DecodeError,
    schema::{EncodeError, Field, Form, Output},
};

/// Most keys and values are no longer: a committed offset, and whose it is.
const USUAL_SIZE: usize = 64;

/// A key or value of a coordinator's record: a number (i16), then fields. A key's number is the
/// record's type, a value's its version.
fn numbered(number: i16, fields: &impl Field, form: Form) -> Result<Bytes, EncodeError> {
    let mut out = Output {
        bytes: BytesMut::with_capacity(USUAL_SIZE),
        ..Output::default()
    };
    out.bytes.put_i16(number);
    fields.write(&mut out, form)?;
    Ok(out.bytes.freeze())
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

            /// The record's key, and its value in `version`. Fails if there is no such version, a
            /// field is set that it lacks, or the type is unknown.
            pub fn encode(&self, version: i16) -> Result<(Bytes, Option<Bytes>), EncodeError> {
                match self {
                    $($enum::$variant { key, value } => {
                        if !$value::VERSIONS.contains(&version) {
                            return Err(EncodeError::new(format!(
                                "there is no {} version {version}", stringify!($value),
                            )));
                        }
                        let key = $crate::records::numbered($number, key, $key::form(0))?;
                        let value = match value {
                            None => None,
                            Some(value) => {
                                Some($crate::records::numbered(version, value, $value::form(version))?)
                            }
                        };
                        Ok((key, value))
                    })*
                    $enum::Unknown(number) => {
                        Err(EncodeError::new(format!("record type {number} is not known")))
                    }
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
