//! A node to test with what needs a whole one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use ottla_base::Uuid;
use ottla_config::{Loaded, Sources};
use ottla_protocol::Request;
use ottla_protocol::frame::{decode_response, encode_request};

use super::{Node, NodeOptions};
use crate::answer::{Answer, Outcome};
use crate::broker::Broker;
use crate::handlers::{Session, handle};
use crate::listener::{Role, unused};
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

    /// What it answers to a client's request in the newest version, from memory.
    pub(crate) async fn ask<R: Request>(&self, request: R) -> R::Response {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut session = Session::new(Arc::new(unused(Role::Broker, true)), client);
        let answer = self.answer_to(&mut session, &request).await;
        let version = *R::KEY.stable_versions().end();
        decode_response::<R>(answer.into_body().unwrap(), version).unwrap().1
    }

    /// What it answers to a request in the newest version that comes in a session.
    pub(crate) async fn answer_to<R: Request>(&self, session: &mut Session, request: &R) -> Answer {
        let version = *R::KEY.stable_versions().end();
        let frame = encode_request(version, 1, None, request).unwrap().bytes;
        let outcome = handle(&self.broker, session, frame.slice(size_of::<i32>()..));
        self.broker.directories.begin_flush();
        let outcome = outcome.in_the_end().await;
        let Outcome::Answer(answer) = outcome else { panic!("{outcome:?}") };
        answer
    }

    pub(crate) const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }
}
