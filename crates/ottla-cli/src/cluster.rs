//! `ottla cluster`: what the cluster says of itself, and one to try things out.

mod demo;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use ottla_client::{Cluster, ClusterBroker};
use serde::Serialize;

use crate::connection::ConnectionArguments;
use crate::failure::{EXIT_CODES, Failure};
use crate::output::{or_dash, print_json, print_line, table};

pub use demo::DemoArguments;

#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct ClusterArguments {
    #[command(flatten)]
    pub connection: ConnectionArguments,
    #[command(subcommand)]
    pub command: ClusterCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ClusterCommand {
    /// Show brokers, controller and feature levels
    #[command(after_help = "Examples:
  ottla cluster info
  ottla cluster info --bootstrap kafka-1:9092,kafka-2:9092
  ottla cluster info --output json | jq -r .cluster_id")]
    Info,
    /// Run a cluster of several nodes on this machine until interrupted
    #[command(after_help = "Examples:
  ottla cluster demo
  ottla cluster demo --nodes 5 --data-dir ./demo
  kill -9 PID                                       of one of its nodes, to see what the others do
  ottla serve --config ./demo/node-2.properties     starts that node again")]
    Demo(DemoArguments),
}

#[derive(Serialize)]
struct ClusterJson {
    cluster_id: Option<String>,
    controller: Option<i32>,
    brokers: Vec<BrokerJson>,
    features: BTreeMap<String, i16>,
}

#[derive(Serialize)]
struct BrokerJson {
    id: i32,
    host: String,
    port: u16,
    rack: Option<String>,
    fenced: bool,
}

pub(crate) async fn run(arguments: ClusterArguments) -> Result<(), Failure> {
    match &arguments.command {
        ClusterCommand::Info => info(&arguments).await,
        ClusterCommand::Demo(demo) => demo::run(&arguments.connection, demo).await,
    }
}

async fn info(arguments: &ClusterArguments) -> Result<(), Failure> {
    let client = arguments.connection.connect().await?;
    let cluster = client.describe_cluster().await?;
    if arguments.connection.wants_json() {
        print_json(&json(cluster))
    } else {
        print_line(&text(&cluster))
    }
}

fn json(cluster: Cluster) -> ClusterJson {
    let broker = |ClusterBroker { broker, is_fenced }| BrokerJson {
        id: broker.id.0,
        host: broker.address.host,
        port: broker.address.port,
        rack: broker.rack,
        fenced: is_fenced,
    };
    ClusterJson {
        cluster_id: cluster.id,
        controller: cluster.controller.map(|id| id.0),
        brokers: cluster.brokers.into_iter().map(broker).collect(),
        features: cluster.features,
    }
}

fn text(cluster: &Cluster) -> String {
    let row = |ClusterBroker { broker, is_fenced }: &ClusterBroker| {
        let is_controller = cluster.controller == Some(broker.id);
        let role = if is_controller { "controller" } else { "-" };
        let state = if *is_fenced { "fenced" } else { "active" };
        [
            broker.id.to_string(),
            broker.address.to_string(),
            or_dash(broker.rack.as_ref()),
            state.to_owned(),
            role.to_owned(),
        ]
    };
    let brokers = table(
        ["BROKER", "ADDRESS", "RACK", "STATE", "ROLE"],
        cluster.brokers.iter().map(row).collect(),
    );
    let features = cluster.features.iter().map(|(name, level)| [name.clone(), level.to_string()]);
    let features = table(["FEATURE", "LEVEL"], features.collect());
    format!("Cluster {}\n\n{brokers}\n\n{features}", or_dash(cluster.id.as_ref()))
}
