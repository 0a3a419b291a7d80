//! Listeners: a name, the protocol spoken there and where to bind or connect.

use std::{collections::BTreeMap, fmt};

use super::settings::{Reader, Settings};

/// One entry of `listeners` or `advertised.listeners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// In upper case, as Kafka compares and shows listener names.
    pub name: String,
    pub protocol: Protocol,
    /// Empty means every interface. An IPv6 address stands here without its brackets.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl Protocol {
    /// Its number in Kafka's metadata records.
    pub fn code(self) -> i16 {
        match self {
            Protocol::Plaintext => 0,
            Protocol::Ssl => 1,
            Protocol::SaslPlaintext => 2,
            Protocol::SaslSsl => 3,
        }
    }

    fn parse(name: &str) -> Option<Protocol> {
        match name.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Some(Protocol::Plaintext),
            "SSL" => Some(Protocol::Ssl),
            "SASL_PLAINTEXT" => Some(Protocol::SaslPlaintext),
            "SASL_SSL" => Some(Protocol::SaslSsl),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Plaintext => "PLAINTEXT",
            Protocol::Ssl => "SSL",
            Protocol::SaslPlaintext => "SASL_PLAINTEXT",
            Protocol::SaslSsl => "SASL_SSL",
        })
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.name, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.name, self.host, self.port)
        }
    }
}

/// One entry of `controller.quorum.voters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    pub id: i32,
    pub host: String,
    pub port: u16,
}

impl Voter {
    pub(super) fn parse(text: &str) -> Option<Voter> {
        let (id, address) = text.split_once('@')?;
        let (host, port) = host_and_port(address)?;
        let id = id.parse().ok().filter(|id: &i32| *id >= 0)?;
        Some(Voter { id, host, port })
    }
}

pub(super) fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = bare(host)?;
    (!host.is_empty()).then_some((host.to_owned(), port.parse().ok()?))
}

/// The host without the brackets around an IPv6 address; `None` if it cannot be a host.
fn bare(host: &str) -> Option<&str> {
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => host,
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-%._:".contains(c);
    host.chars().all(is_host).then_some(host)
}

/// `listener.security.protocol.map`: `NAME:PROTOCOL,...`
pub(super) fn protocols(text: &str) -> Result<BTreeMap<String, Protocol>, String> {
    let mut map = BTreeMap::new();
    for entry in super::key::split(text) {
        let (name, protocol) = entry
            .rsplit_once(':')
            .ok_or_else(|| format!("`{entry}` is not of the form NAME:PROTOCOL"))?;
        let protocol = Protocol::parse(protocol).ok_or_else(|| {
            format!(
                "`{protocol}` is no security protocol (PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL)"
            )
        })?;
        map.insert(name.trim().to_uppercase(), protocol);
    }
    Ok(map)
}

/// Which of two lists is being read. Advertised listeners may share a port: clients of different networks
/// may reach one broker through the same port of different hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Bound,
    Advertised,
}

pub(super) fn parse(
    entries: &[String],
    protocols: &BTreeMap<String, Protocol>,
    list: List,
) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for entry in entries {
        let listener = parse_one(entry, protocols)?;
        for other in &listeners {
            if other.name == listener.name {
                return Err(format!(
                    "Each listener must have a different name, and {} appears twice",
                    other.name
                ));
            }
            // An IPv4 and an IPv6 address may share a port.
            let same_family = other.host.contains(':') == listener.host.contains(':');
            if list == List::Bound
                && listener.port != 0
                && other.port == listener.port
                && same_family
            {
                return Err(format!(
                    "Each listener must have a different port, and {} appears twice",
                    other.port
                ));
            }
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

fn parse_one(entry: &str, protocols: &BTreeMap<String, Protocol>) -> Result<Listener, String> {
    let malformed =
        || format!("Unable to parse {entry} to a broker endpoint: NAME://host:port is expected");
    let (name, address) = entry.split_once("://").ok_or_else(malformed)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let host = bare(host).ok_or_else(malformed)?;
    let port = port.parse().map_err(|_| malformed())?;
    let name = name.to_uppercase();
    let protocol = *protocols
        .get(&name)
        .ok_or_else(|| format!("No security protocol defined for listener {name}"))?;
    Ok(Listener {
        name,
        protocol,
        host: host.to_owned(),
        port,
    })
}

/// Everything about listeners, which can only be judged together.
pub(super) struct Network {
    pub(super) listeners: Vec<Listener>,
    pub(super) advertised_listeners: Vec<Listener>,
    pub(super) controller_listeners: Vec<Listener>,
    pub(super) advertised_controller_listeners: Vec<Listener>,
    pub(super) inter_broker_listener_name: String,
}

impl Network {
    pub(super) fn read(read: &mut Reader<'_>, settings: &Settings) -> Network {
        let controllers: Vec<String> = read
            .list("controller.listener.names")
            .iter()
            .map(|n| n.to_uppercase())
            .collect();
        let mut protocols = match protocols(&read.text("listener.security.protocol.map")) {
            Ok(protocols) => protocols,
            Err(why) => {
                read.refuse("listener.security.protocol.map", &why);
                BTreeMap::new()
            }
        };
        if !settings.is_set("listener.security.protocol.map") {
            // A map that nobody wrote has no room for the controllers' listener; Kafka makes it plaintext.
            for name in &controllers {
                protocols.entry(name.clone()).or_insert(Protocol::Plaintext);
            }
        }
        let listed = |read: &mut Reader<'_>, key, list| {
            let entries = read.list(key);
            parse(&entries, &protocols, list).unwrap_or_else(|why| {
                read.refuse(key, &why);
                Vec::new()
            })
        };
        let all = listed(read, "listeners", List::Bound);
        let (controller_listeners, listeners): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|listener| controllers.contains(&listener.name));
        let mut advertised_listeners = listed(read, "advertised.listeners", List::Advertised);
        let mut advertised_controller_listeners = controller_listeners.clone();
        for listener in &mut advertised_controller_listeners {
            let mut others = advertised_listeners.iter();
            if let Some(advertised) = others.find(|other| other.name == listener.name) {
                *listener = advertised.clone();
            }
        }
        advertised_listeners.retain(|listener| !controllers.contains(&listener.name));

        for listener in listeners.iter().chain(&controller_listeners) {
            if listener.protocol != Protocol::Plaintext {
                // Serving plaintext where encryption was asked for would be the worst answer.
                read.refuse(
                    "listeners",
                    &format!(
                        "{} speaks {}, and only PLAINTEXT is served",
                        listener.name, listener.protocol
                    ),
                );
            }
        }
        for listener in &advertised_listeners {
            if !listeners.iter().any(|bound| bound.name == listener.name) {
                read.refuse(
                    "advertised.listeners",
                    &format!(
                        "{} is advertised and not among the listeners",
                        listener.name
                    ),
                );
            }
            if listener.host == "0.0.0.0" || listener.host == "::" {
                read.refuse(
                    "advertised.listeners",
                    &format!(
                        "advertised.listeners cannot use the nonroutable meta-address {}. Use a routable IP address.",
                        listener.host
                    ),
                );
            }
        }
        if advertised_listeners.is_empty() {
            advertised_listeners = listeners.clone();
        }
        for listener in advertised_listeners
            .iter_mut()
            .chain(&mut advertised_controller_listeners)
        {
            if matches!(listener.host.as_str(), "" | "0.0.0.0" | "::") {
                listener.host = own_host(settings);
            }
        }
        let inter_broker_listener_name = inter_broker_listener(read, &listeners);
        Network {
            listeners,
            advertised_listeners,
            controller_listeners,
            advertised_controller_listeners,
            inter_broker_listener_name,
        }
    }
}

fn inter_broker_listener(read: &mut Reader<'_>, listeners: &[Listener]) -> String {
    let by_name = read
        .optional_text("inter.broker.listener.name")
        .map(|name| name.to_uppercase());
    let by_protocol = read.text("security.inter.broker.protocol");
    let Some(name) = by_name else {
        // Kafka insists on a listener named like the protocol. One node has nobody to talk to over it.
        let named = listeners
            .iter()
            .find(|listener| listener.name == by_protocol);
        return named
            .or(listeners.first())
            .map_or(by_protocol, |listener| listener.name.clone());
    };
    if !listeners.iter().any(|listener| listener.name == name) {
        let names: Vec<&str> = listeners
            .iter()
            .map(|listener| listener.name.as_str())
            .collect();
        read.refuse(
            "inter.broker.listener.name",
            &format!("it must be one of the listeners: {}", names.join(", ")),
        );
    }
    name
}

/// What others call this machine, for listeners that are bound to every interface and advertise nothing else.
fn own_host(settings: &Settings) -> String {
    // Started without any configuration, a node is somebody's own, and a laptop's name need not resolve.
    if settings.is_built_in("log.dirs") {
        return "localhost".to_owned();
    }
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) if !name.trim().is_empty() => name.trim().to_owned(),
        _ => "localhost".to_owned(),
    }
}

pub(super) fn voters(read: &mut Reader<'_>) -> Vec<Voter> {
    let entries = read.list("controller.quorum.voters");
    entries
        .iter()
        .filter_map(|entry| Voter::parse(entry))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "PLAINTEXT:PLAINTEXT,TC-0:PLAINTEXT,SSL:SSL";

    #[test]
    fn names_with_dashes_ipv6_hosts_and_port_zero_are_read() {
        check(
            "plaintext://:0,TC-0://[::1]:9092,SSL://0.0.0.0:9093",
            Ok("PLAINTEXT://:0 TC-0://[::1]:9092 SSL://0.0.0.0:9093"),
        );
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        check("9092", Err("Unable to parse 9092"));
        check("PLAINTEXT://host", Err("Unable to parse"));
        check("PLAINTEXT://host:70000", Err("Unable to parse"));
        check("PLAINTEXT://ho st:1", Err("Unable to parse"));
        check("PLAINTEXT://[::1:1", Err("Unable to parse"));
        check(
            "OTHER://:9092",
            Err("No security protocol defined for listener OTHER"),
        );
        check("PLAINTEXT://:1,plaintext://:2", Err("different name"));
        check("PLAINTEXT://:1,SSL://:1", Err("different port"));
    }

    #[test]
    fn an_ipv4_and_an_ipv6_listener_may_share_a_port() {
        check(
            "PLAINTEXT://0.0.0.0:1,SSL://[::]:1",
            Ok("PLAINTEXT://0.0.0.0:1 SSL://[::]:1"),
        );
    }

    #[test]
    fn a_protocol_map_is_read_and_checked() {
        assert_eq!(
            protocols("TC-0:plaintext").expect("a map")["TC-0"],
            Protocol::Plaintext
        );
        assert!(protocols("A:B").is_err_and(|why| why.contains("`B` is no security protocol")));
        assert!(protocols("A").is_err_and(|why| why.contains("NAME:PROTOCOL")));
    }

    #[test]
    fn a_voter_has_an_id_a_host_and_a_port() {
        let voter = Voter::parse("1@[::1]:9093").expect("a voter");
        assert_eq!(
            (voter.id, voter.host.as_str(), voter.port),
            (1, "::1", 9093)
        );
        for bad in ["1", "@h:1", "-1@h:1", "1@h", "1@:1", "1@h:x"] {
            assert_eq!(Voter::parse(bad), None, "{bad}");
        }
    }

    #[track_caller]
    fn check(text: &str, want: Result<&str, &str>) {
        let map = protocols(MAP).expect("a map");
        match (
            parse(&super::super::key::split(text), &map, List::Bound),
            want,
        ) {
            (Ok(got), Ok(want)) => {
                let got: Vec<String> = got.iter().map(Listener::to_string).collect();
                assert_eq!(got.join(" "), want);
            }
            (Err(got), Err(want)) => assert!(got.contains(want), "{got} for {text}"),
            (got, want) => panic!("{got:?} instead of {want:?} for {text}"),
        }
    }
}
