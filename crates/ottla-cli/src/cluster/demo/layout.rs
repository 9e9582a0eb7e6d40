//! What is where: a demo's nodes have their configuration and data in one directory, and keep their ports.
//!
//! `cluster-id`, and for each node `node-1.properties` and `node-1/`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use crate::cluster::demo::node::Program;
use crate::failure::{Exit, Failure};

const CLUSTER_ID: &str = "cluster-id";
const LISTENERS: &str = "listeners=PLAINTEXT://";
const CONTROLLER: &str = ",CONTROLLER://";

/// Where one node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeFiles {
    pub(super) id: u8,
    pub(super) clients: String,
    pub(super) controllers: String,
    pub(super) config: PathBuf,
    pub(super) data: PathBuf,
}

#[derive(Debug)]
pub(super) struct Layout {
    pub(super) cluster_id: String,
    pub(super) nodes: Vec<NodeFiles>,
}

impl Layout {
    /// Takes up what an earlier demo has left in the directory, or begins there.
    pub(super) async fn prepare(
        root: &Path,
        count: u8,
        program: &Program,
    ) -> Result<Self, Failure> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let id_file = root.join(CLUSTER_ID);
        match fs::read_to_string(&id_file) {
            Ok(id) => {
                Ok(Self { cluster_id: id.trim().to_owned(), nodes: read_nodes(&root, count)? })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let nodes = new_nodes(&root, count)?;
                for node in &nodes {
                    fs::write(&node.config, properties(node, &nodes))?;
                }
                let cluster_id = program.random_uuid().await?;
                // Last: without it, nothing was begun.
                fs::write(id_file, format!("{cluster_id}\n"))?;
                Ok(Self { cluster_id, nodes })
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn config_file(root: &Path, id: u8) -> PathBuf {
    root.join(format!("node-{id}.properties"))
}

fn read_nodes(root: &Path, count: u8) -> Result<Vec<NodeFiles>, Failure> {
    let found = (1..=u8::MAX).take_while(|id| config_file(root, *id).exists()).count();
    if found != usize::from(count) {
        let message = format!("{} has a cluster of {found} nodes, not of {count}", root.display());
        return Err(Failure::new(Exit::Usage, message)
            .with_cure(format!("Start it with --nodes {found}, or choose another directory.")));
    }
    (1..=count).map(|id| read_node(root, id)).collect()
}

fn read_node(root: &Path, id: u8) -> Result<NodeFiles, Failure> {
    let config = config_file(root, id);
    let text = fs::read_to_string(&config)?;
    let listeners = text.lines().find_map(|line| line.strip_prefix(LISTENERS));
    let Some((clients, controllers)) = listeners.and_then(|it| it.split_once(CONTROLLER)) else {
        let message = format!("{} has no line {LISTENERS}…{CONTROLLER}…", config.display());
        return Err(Failure::new(Exit::Failed, message));
    };
    let (clients, controllers) = (clients.to_owned(), controllers.to_owned());
    Ok(NodeFiles { id, clients, controllers, config, data: root.join(format!("node-{id}")) })
}

fn new_nodes(root: &Path, count: u8) -> io::Result<Vec<NodeFiles>> {
    // All are held until the last is there, so that no two are the same.
    let held: Vec<TcpListener> = (0..2 * u16::from(count))
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<io::Result<_>>()?;
    let addresses: Vec<String> = held
        .iter()
        .map(|socket| Ok(socket.local_addr()?.to_string()))
        .collect::<io::Result<_>>()?;
    let (clients, controllers) = addresses.split_at(usize::from(count));
    let pairs = clients.iter().zip(controllers);
    Ok((1..=count)
        .zip(pairs)
        .map(|(id, (clients, controllers))| NodeFiles {
            id,
            clients: clients.clone(),
            controllers: controllers.clone(),
            config: config_file(root, id),
            data: root.join(format!("node-{id}")),
        })
        .collect())
}

/// A node's configuration: as many copies as there can be, and one node may be missing where there are three.
fn properties(node: &NodeFiles, all: &[NodeFiles]) -> String {
    let voter = |it: &NodeFiles| format!("{}@{}", it.id, it.controllers);
    let voters: Vec<String> = all.iter().map(voter).collect();
    let copies = all.len().min(3);
    let least = if copies == 3 { 2 } else { 1 };
    let data = node.data.display().to_string().replace('\\', "\\\\");
    format!(
        "# Written by ottla cluster demo; to start this node alone: ottla serve --config FILE\n\
         process.roles=broker,controller\n\
         node.id={}\n\
         controller.quorum.voters={}\n\
         controller.listener.names=CONTROLLER\n\
         {LISTENERS}{}{CONTROLLER}{}\n\
         log.dirs={data}\n\
         ottla.http.listener=127.0.0.1:0\n\
         default.replication.factor={copies}\n\
         min.insync.replicas={least}\n\
         offsets.topic.replication.factor={copies}\n\
         transaction.state.log.replication.factor={copies}\n\
         transaction.state.log.min.isr={least}\n\
         share.coordinator.state.topic.replication.factor={copies}\n\
         share.coordinator.state.topic.min.isr={least}\n\
         group.initial.rebalance.delay.ms=0\n",
        node.id,
        voters.join(","),
        node.clients,
        node.controllers,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_where_they_were_the_next_time() {
        let root = tempfile::tempdir().unwrap();
        let nodes = new_nodes(root.path(), 3).unwrap();
        for node in &nodes {
            fs::write(&node.config, properties(node, &nodes)).unwrap();
        }
        assert_eq!(read_nodes(root.path(), 3).unwrap(), nodes);
        let failure = read_nodes(root.path(), 1).unwrap_err();
        assert!(failure.message.contains("a cluster of 3 nodes, not of 1"), "{failure:?}");
    }

    #[test]
    fn there_are_as_many_copies_as_there_can_be() {
        let root = Path::new("/demo");
        for (count, factor, least) in [(1, 1, 1), (2, 2, 1), (3, 3, 2), (5, 3, 2)] {
            let nodes = new_nodes(root, count).unwrap();
            let text = properties(&nodes[0], &nodes);
            assert!(text.contains(&format!("\ndefault.replication.factor={factor}\n")), "{text}");
            assert!(text.contains(&format!("\nmin.insync.replicas={least}\n")), "{text}");
            assert_eq!(text.matches('@').count(), usize::from(count), "{text}");
        }
    }
}
