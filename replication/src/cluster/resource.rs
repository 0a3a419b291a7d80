//! What a config belongs to.

use std::fmt;

/// What a config belongs to, ordered by kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    pub kind: ResourceKind,
    /// Empty is the default of all brokers, where the kind is that.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    Topic = 2,
    Broker = 4,
    ClientMetrics = 16,
    Group = 32,
}

impl Resource {
    pub fn topic(name: &str) -> Resource {
        Resource {
            kind: ResourceKind::Topic,
            name: name.to_owned(),
        }
    }

    pub fn broker(id: i32) -> Resource {
        Resource {
            kind: ResourceKind::Broker,
            name: id.to_string(),
        }
    }

    /// What holds for every broker without an override of its own.
    pub fn all_brokers() -> Resource {
        Resource {
            kind: ResourceKind::Broker,
            name: String::new(),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.name)
    }
}

impl ResourceKind {
    pub fn id(self) -> i8 {
        self as i8
    }

    pub fn from_id(id: i8) -> Option<ResourceKind> {
        [
            ResourceKind::Topic,
            ResourceKind::Broker,
            ResourceKind::ClientMetrics,
            ResourceKind::Group,
        ]
        .into_iter()
        .find(|kind| kind.id() == id)
    }
}
