//! The reference page in the repository is the one that the tables make.

use ottla_config::reference::reference_page;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

#[test]
fn the_reference_page_is_fresh() {
    let fresh = reference_page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, &fresh).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == fresh,
        "docs/configuration.md is stale: UPDATE=1 cargo test -p ottla-config --test reference"
    );
}
