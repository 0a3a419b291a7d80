//! What one configuration key is: its type, its default, what it may be set to and when.
//!
//! A value is checked in two steps, as Kafka's `ConfigDef` does: the text is parsed by the key's
//! [`Kind`], and what came out is held against its [`Valid`] range. Both refusals are worded as Kafka words
//! them, because clients and their tests show and match those messages.

use std::fmt;

use super::listeners;

/// One row of the table of keys.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// `None` is Kafka's null: there is no value until somebody sets one.
    pub default: Option<&'static str>,
    pub valid: Valid,
    pub update: Update,
    /// The broker's key that supplies the value while this topic or group has none of its own.
    pub broker: Option<&'static str>,
    pub documentation: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl Kind {
    /// The type's number in a DescribeConfigs answer (0 is "unknown", for keys that are not in the table).
    pub fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }
}

/// Who may change a broker's key while it runs. Topic and group keys may always be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    ReadOnly,
    /// For one broker by its id, not for all at once.
    PerBroker,
    /// For one broker or, as the cluster's default, for all.
    ClusterWide,
}

/// What a key may be set to, beyond being of its kind.
#[derive(Debug, Clone, Copy)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// gzip's levels are 1 to 9, and -1 for "the codec's own default".
    BetweenOr(i64, i64, i64),
    NonEmpty,
    OneOf(&'static [&'static str]),
    OneOfAnyCase(&'static [&'static str]),
    NonEmptyList,
    ListOf(&'static [&'static str]),
    NonEmptyListOf(&'static [&'static str]),
    /// `*` or `partition:broker,...`
    ThrottledReplicas,
    /// `id@host:port,...`
    Voters,
    /// `host:port,...`
    Servers,
    /// `latest`, `earliest` or `by_duration:` and an ISO 8601 duration.
    OffsetReset,
    /// An address to listen on, or nothing.
    Address,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

impl Key {
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// Reads and checks a value; the error is Kafka's sentence.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = self.read(text)?;
        self.check(&value)?;
        Ok(value)
    }

    fn read(&self, text: &str) -> Result<Value, String> {
        let text = trim(text);
        let integer = |min: i64, max: i64| {
            text.parse()
                .ok()
                .filter(|number| (min..=max).contains(number))
                .map(Value::Integer)
                .ok_or_else(|| self.invalid(text, &self.not_a_number()))
        };
        match self.kind {
            Kind::Boolean if text.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            Kind::Boolean if text.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            Kind::Boolean => Err(self.invalid(text, "Expected value to be either true or false")),
            Kind::Short => integer(i16::MIN.into(), i16::MAX.into()),
            Kind::Int => integer(i32::MIN.into(), i32::MAX.into()),
            Kind::Long => integer(i64::MIN, i64::MAX),
            // Java reads NaN too, and no range then refuses it. Nothing good comes of a ratio of NaN.
            Kind::Double => text
                .parse()
                .ok()
                .filter(|number: &f64| !number.is_nan())
                .map(Value::Double)
                .ok_or_else(|| self.invalid(text, &self.not_a_number())),
            Kind::List => Ok(Value::List(split(text))),
            Kind::String | Kind::Class | Kind::Password => Ok(Value::Text(text.to_owned())),
        }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        if let Value::List(items) = value {
            self.check_items(items)?;
        }
        let refuse = |why: &str| Err(self.invalid(&value.to_string(), why));
        match (self.valid, value) {
            (Valid::AtLeast(min), _) if value.is_below(min) => {
                refuse(&format!("Value must be at least {min}"))
            }
            (Valid::Between(min, _), _) if value.is_below(min) => {
                refuse(&format!("Value must be at least {min}"))
            }
            (Valid::Between(_, max), _) if value.is_above(max) => {
                refuse(&format!("Value must be no more than {max}"))
            }
            (Valid::BetweenOr(min, max, other), Value::Integer(number))
                if *number != other && !(min..=max).contains(number) =>
            {
                refuse(&format!(
                    "Value must be between {min} and {max} or equal to {other}"
                ))
            }
            (Valid::NonEmpty, Value::Text(text)) if text.is_empty() => {
                refuse("String must be non-empty")
            }
            (Valid::OneOf(allowed), Value::Text(text)) if !allowed.contains(&text.as_str()) => {
                refuse(&format!("String must be one of: {}", allowed.join(", ")))
            }
            (Valid::OneOfAnyCase(allowed), Value::Text(text))
                if !allowed.iter().any(|name| name.eq_ignore_ascii_case(text)) =>
            {
                refuse(&format!(
                    "String must be one of (case insensitive): {}",
                    allowed.join(", ")
                ))
            }
            (Valid::OffsetReset, Value::Text(text)) if !is_offset_reset(text) => refuse(&format!(
                "Invalid value `{text}` for configuration {}. The value must be either 'earliest', 'latest' or of \
                     the format 'by_duration:<PnDTnHnMn.nS>'.",
                self.name
            )),
            (Valid::Address, Value::Text(text))
                if !text.is_empty() && text.parse::<std::net::SocketAddr>().is_err() =>
            {
                refuse("Expected an IP address and a port, or nothing")
            }
            _ => Ok(()),
        }
    }

    fn check_items(&self, items: &[String]) -> Result<(), String> {
        let name = self.name;
        let allowed = match self.valid {
            Valid::ListOf(allowed) | Valid::NonEmptyListOf(allowed) => allowed,
            _ => &[],
        };
        if items.is_empty() && matches!(self.valid, Valid::NonEmptyList | Valid::NonEmptyListOf(_))
        {
            let include = if allowed.is_empty() {
                "any non-empty value".to_owned()
            } else {
                format!("[{}]", allowed.join(", "))
            };
            return Err(format!(
                "Configuration '{name}' must not be empty. Valid values include: {include}"
            ));
        }
        if let Valid::ThrottledReplicas = self.valid {
            return if is_throttled_replicas(items) {
                Ok(())
            } else {
                Err(self.invalid(
                    &format!("[{}]", items.join(", ")),
                    &format!(
                        "{name} must be the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                    ),
                ))
            };
        }
        for item in items {
            if item.is_empty() {
                return Err(format!("Configuration '{name}' values must not be empty."));
            }
            if !allowed.is_empty() && !allowed.contains(&item.as_str()) {
                return Err(self.invalid(
                    item,
                    &format!("String must be one of: {}", allowed.join(", ")),
                ));
            }
            match self.valid {
                Valid::Voters if listeners::Voter::parse(item).is_none() => {
                    return Err(format!(
                        "Invalid configuration value for {name}. Each entry should be in the form `{{id}}@{{host}}:{{port}}`."
                    ));
                }
                Valid::Servers if listeners::host_and_port(item).is_none() => {
                    return Err(format!(
                        "Failed to parse host name from {item} for the configuration {name}. \
                         Each entry should be in the form \"{{host}}:{{port}}\""
                    ));
                }
                _ => (),
            }
        }
        Ok(())
    }

    pub(super) fn invalid(&self, value: &str, why: &str) -> String {
        let value = if self.is_sensitive() {
            "[hidden]"
        } else {
            value
        };
        format!(
            "Invalid value {value} for configuration {}: {why}",
            self.name
        )
    }

    fn not_a_number(&self) -> String {
        format!("Not a number of type {}", self.kind.name())
    }

    /// What may be written here, for the person who wrote something else.
    pub fn allowed(&self) -> String {
        match (self.valid, self.kind) {
            (Valid::Any, Kind::Boolean) => "true or false".to_owned(),
            (Valid::Any, Kind::Short) => format!("a whole number of {} to {}", i16::MIN, i16::MAX),
            (Valid::Any, Kind::Int) => format!("a whole number of {} to {}", i32::MIN, i32::MAX),
            (Valid::Any, Kind::Long) => format!("a whole number of {} to {}", i64::MIN, i64::MAX),
            (Valid::Any, Kind::Double) => "a number".to_owned(),
            (Valid::Any, Kind::List) => "a list separated by commas".to_owned(),
            (Valid::Any, _) => "any text".to_owned(),
            (Valid::AtLeast(min), Kind::Short) => {
                format!("a whole number of {min} to {}", i16::MAX)
            }
            (Valid::AtLeast(min), Kind::Int) => format!("a whole number of {min} to {}", i32::MAX),
            (valid, _) => valid.to_string(),
        }
    }
}

impl Value {
    fn is_below(&self, bound: i64) -> bool {
        match self {
            Value::Integer(number) => *number < bound,
            Value::Double(number) => *number < bound as f64,
            _ => false,
        }
    }

    fn is_above(&self, bound: i64) -> bool {
        match self {
            Value::Integer(number) => *number > bound,
            Value::Double(number) => *number > bound as f64,
            _ => false,
        }
    }
}

/// The value as DescribeConfigs shows it: normalised, a list without blanks around its commas.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => value.fmt(f),
            Value::Integer(value) => value.fmt(f),
            Value::Text(value) => value.fmt(f),
            Value::List(items) => f.write_str(&items.join(",")),
            // As Java prints a double: decimal from 0.001 to 10^7, `1.0E10` outside.
            Value::Double(value) if *value == 0.0 || (1e-3..1e7).contains(&value.abs()) => {
                write!(f, "{value:?}")
            }
            Value::Double(value) => {
                let text = format!("{value:E}");
                match text.split_once('E') {
                    Some((digits, exponent)) if !digits.contains('.') => {
                        write!(f, "{digits}.0E{exponent}")
                    }
                    _ => f.write_str(&text),
                }
            }
        }
    }
}

impl fmt::Display for Valid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Valid::Any => f.write_str("anything"),
            Valid::AtLeast(min) => write!(f, "at least {min}"),
            Valid::Between(min, max) => write!(f, "{min} to {max}"),
            Valid::BetweenOr(min, max, other) => write!(f, "{min} to {max}, or {other}"),
            Valid::NonEmpty => f.write_str("any text but the empty one"),
            Valid::OneOf(names) => write!(f, "one of {}", names.join(", ")),
            Valid::OneOfAnyCase(names) => {
                write!(f, "one of {} (case does not matter)", names.join(", "))
            }
            Valid::NonEmptyList => f.write_str("at least one item, separated by commas"),
            Valid::ListOf(names) => write!(f, "any of {}, separated by commas", names.join(", ")),
            Valid::NonEmptyListOf(names) => write!(
                f,
                "one or more of {}, separated by commas",
                names.join(", ")
            ),
            Valid::ThrottledReplicas => f.write_str("* or partition:broker,partition:broker,..."),
            Valid::Voters => f.write_str("id@host:port,id@host:port,..."),
            Valid::Servers => f.write_str("host:port,host:port,..."),
            Valid::OffsetReset => f.write_str("[latest, earliest, by_duration:PnDTnHnMn.nS]"),
            Valid::Address => {
                f.write_str("an IP address and a port such as 0.0.0.0:9404, or nothing")
            }
        }
    }
}

/// Java's `String.trim`: everything up to and including the blank.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

/// The items of a list. A repeated item counts once, as Kafka has it since KIP-1161.
pub(super) fn split(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut items: Vec<String> = Vec::new();
    for item in text.split(',').map(trim) {
        if !items.iter().any(|seen| seen == item) {
            items.push(item.to_owned());
        }
    }
    items
}

fn is_throttled_replicas(items: &[String]) -> bool {
    let is_replica = |item: &String| {
        item.split_once(':').is_some_and(|(partition, broker)| {
            partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
        })
    };
    matches!(items, [only] if only == "*") || items.iter().all(is_replica)
}

fn is_offset_reset(text: &str) -> bool {
    matches!(text, "latest" | "earliest")
        || text.strip_prefix("by_duration:").is_some_and(is_duration)
}

/// `PnDTnHnMn.nS` as `java.time.Duration` reads it, of which a negative one makes no sense here.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['P', 'p']) else {
        return false;
    };
    let (days, time) = match rest.split_once(['T', 't']) {
        Some((_, "")) => return false,
        Some((days, time)) => (days, time),
        None => (rest, ""),
    };
    let is_whole = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !days.is_empty() && !days.strip_suffix(['D', 'd']).is_some_and(is_whole) {
        return false;
    }
    let mut rest = time;
    for unit in [['H', 'h'], ['M', 'm']] {
        if let Some((digits, after)) = rest.split_once(unit) {
            if !is_whole(digits) {
                return false;
            }
            rest = after;
        }
    }
    if !rest.is_empty() {
        let Some(seconds) = rest.strip_suffix(['S', 's']) else {
            return false;
        };
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
        if !is_whole(whole) || !is_whole(fraction) {
            return false;
        }
    }
    !(days.is_empty() && time.is_empty())
}
