//! What nodes say in their logs, and on standard output once they are ready.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use nodes::Nodes;

#[test]
fn a_property_without_effect_is_noted_beside_json_too() {
    let mut nodes = Nodes::new(1);
    nodes.serve(1, &[]);
    nodes.ready(&[1]);
    nodes.succeed(&["topic", "create", "orders"]);
    for form in ["table", "json"] {
        let set = ["config", "set", "topic/orders", "local.retention.ms=1000", "-o", form];
        let ended: nodes::Ended = nodes.client(&set).output().unwrap().into();
        let note = "note: Ottla accepts local.retention.ms; it has no effect there";
        assert!(ended.err.contains(note), "{form}: {}{}", ended.out, ended.err);
        assert!(ended.out.contains("local.retention.ms"), "{form}: {}", ended.out);
    }
}

#[test]
fn a_port_that_there_is_not_is_called_that_on_the_command_line() {
    let refused = |arguments: &[&str]| {
        let ended: nodes::Ended = nodes::ottla().args(arguments).output().unwrap().into();
        assert_ne!(ended.code, 0);
        ended.err
    };
    let clients = refused(&["topic", "list", "--bootstrap-server", "localhost:99999"]);
    assert!(clients.contains("its port is not between 1 and 65535"), "{clients}");
    let joining = refused(&["serve", "--join", "localhost:99999"]);
    assert!(joining.contains("is not between 1 and 65535"), "{joining}");
    let listening = refused(&["serve", "--listen", "localhost:99999"]);
    assert!(listening.contains("is not between 0 and 65535"), "{listening}");
}
