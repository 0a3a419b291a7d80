//! `sordini cluster`: what `kafka-cluster.sh` does.

use clap::{Args, Subcommand};
use kafka_protocol::messages::{DescribeClusterRequest, UnregisterBrokerRequest};

use super::{
    Connection, Failure, api_versions,
    console::Console,
    table::{self, fixed, growing},
};
use crate::client::refused;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the cluster's id
    ClusterId {
        #[command(flatten)]
        connection: Connection,
    },
    /// List the brokers and where they listen
    ListEndpoints {
        #[command(flatten)]
        connection: Connection,
        /// Also brokers that are registered but not alive
        #[arg(long)]
        include_fenced_brokers: bool,
    },
    /// Forget a broker that will not come back
    Unregister {
        #[command(flatten)]
        connection: Connection,
        /// The broker's id
        #[arg(short, long, value_name = "broker")]
        id: i32,
    },
    /// Which requests each broker serves
    ApiVersions(api_versions::Options),
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    match options.action {
        Action::ClusterId { connection } => {
            let mut client = connection.open("sordini-cluster", console).await?;
            let cluster = client.metadata(Some(&[])).await?;
            match cluster.cluster_id {
                Some(id) => console.line(&format!("Cluster ID: {}", &*id)),
                None => console.line("No cluster ID found. The Kafka version is probably too old."),
            }
        }
        Action::ListEndpoints {
            connection,
            include_fenced_brokers,
        } => list_endpoints(&connection, include_fenced_brokers, console).await,
        Action::Unregister { connection, id } => {
            let mut client = connection.open("sordini-cluster", console).await?;
            let request = UnregisterBrokerRequest::default().with_broker_id(id.into());
            let response = client.any(0, &request).await?;
            match refused(response.error_code, response.error_message.as_ref()) {
                Ok(()) => console.line(&format!("Broker {id} is no longer registered.")),
                Err(refusal) => Err(Failure::Refused(refusal.with_exception())),
            }
        }
        Action::ApiVersions(options) => api_versions::run(options, console).await,
    }
}

async fn list_endpoints(
    connection: &Connection,
    fenced: bool,
    console: &mut Console,
) -> Result<(), Failure> {
    let mut client = connection.open("sordini-cluster", console).await?;
    if fenced && client.version::<DescribeClusterRequest>(2).await? < 2 {
        return Err(Failure::Refused(
            "The broker is too old to list brokers that are fenced".to_owned(),
        ));
    }
    let request = DescribeClusterRequest::default()
        // The listeners of brokers; 2 would be those of controllers.
        .with_endpoint_type(1)
        .with_include_fenced_brokers(fenced);
    let mut cluster = client.describe_cluster(&request).await?;
    cluster.brokers.sort_by_key(|broker| broker.broker_id.0);
    let row =
        |broker: kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker| {
            let state = if broker.is_fenced {
                "fenced"
            } else {
                "unfenced"
            };
            vec![
                broker.broker_id.0.to_string(),
                broker.host.to_string(),
                broker.port.to_string(),
                broker
                    .rack
                    .map_or("null".to_owned(), |rack| rack.to_string()),
                state.to_owned(),
                "broker".to_owned(),
            ]
        };
    let rows: Vec<Vec<String>> = cluster.brokers.into_iter().map(row).collect();
    // The host's column has a width of its own only by its longest host.
    let columns = [
        fixed("ID", 10),
        growing("HOST", 4),
        fixed("PORT", 10),
        fixed("RACK", 10),
        fixed("STATE", 10),
        fixed("ENDPOINT_TYPE", 15),
    ];
    for line in table::lines(&columns, &rows) {
        console.line(&line)?;
    }
    Ok(())
}
