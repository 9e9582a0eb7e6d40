//! The operator's port: `/metrics` for Prometheus, `/healthz` (the process lives), `/readyz` (it serves clients).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::broker::Broker;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `shutdown` is true.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn serve(
    socket: TcpListener,
    broker: Arc<Broker>,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .with_state(broker);
    let stopped = async move {
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    axum::serve(socket, router).with_graceful_shutdown(stopped).await
}

async fn metrics(State(broker): State<Arc<Broker>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], broker.render_metrics())
}

/// A new start would cure no disk, and end the reading of what is on it.
async fn healthy(State(broker): State<Arc<Broker>>) -> String {
    format!("ok\n{}", broker.disk_problems())
}

async fn ready(State(broker): State<Arc<Broker>>) -> impl IntoResponse {
    match broker.not_ready() {
        // A disk that has failed or is full takes its own partitions with it: all others are served.
        None => (StatusCode::OK, format!("ready\n{}", broker.disk_problems())),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
