//! A node to test with what needs a whole one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ottla_base::Uuid;
use ottla_config::{Loaded, Sources};

use super::{Node, NodeOptions};
use crate::broker::Broker;
use crate::log_directories::{DataDirectories, DataDirectory};
use crate::log_levels::LogLevels;

impl Node {
    /// A cluster of one in a directory that is empty.
    pub(crate) async fn alone(directory: &Path) -> Self {
        let sources = Sources {
            data_dir: Some(directory.display().to_string()),
            listen: Some("127.0.0.1:0".to_owned()),
            set: vec!["ottla.http.listener=none".to_owned()],
            ..Sources::default()
        };
        let Loaded { config, settings, .. } = ottla_config::load(&sources).unwrap();
        let directory = DataDirectory { path: directory.to_owned(), id: Uuid([1; 16]) };
        let options = NodeOptions {
            directories: DataDirectories {
                usable: vec![directory.clone()],
                unreadable: Vec::new(),
                metadata: directory,
            },
            cluster_id: "a-cluster-for-a-test".to_owned(),
            initial_voters: Vec::new(),
            levels: BTreeMap::new(),
            config,
            settings,
            log_levels: LogLevels::new("", Box::new(|_| Ok(()))),
        };
        Self::start(options).await.unwrap()
    }

    pub(crate) const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }
}
