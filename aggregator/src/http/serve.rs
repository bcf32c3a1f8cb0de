//! Sockets: accept, TLS if configured, limits, an orderly end.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};

use super::{
    App, feed,
    patience::{PATIENCE, Patient},
    places::Client,
    router,
};
use crate::shared::Shared;

/// Connections at once. Each costs some 20 kB; who comes when all are taken waits in the kernel's queue.
/// More than there are places to stay, so that a question always finds one.
const MAX_CONNECTIONS: usize = 16_384;

/// How long a client may take to say what it wants, the first time or the next.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests under way may take after the end was asked for.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// Serves the API until `end`, then lets requests under way finish for a moment. Beyond loopback nothing is served
/// without TLS, whatever the configuration was taken for.
pub async fn serve(shared: Shared, listener: TcpListener, end: impl Future<Output = ()>) {
    serve_app(App::new(shared), listener, end).await;
}

/// See [`serve`].
pub(super) async fn serve_app(app: App, listener: TcpListener, end: impl Future<Output = ()>) {
    let listen = listener
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let api = &app.shared.api;
    if !listen.ip().is_loopback() && api.tls.is_none() {
        error!(%listen, "the API is not served: beyond loopback it needs api.certificate and api.key");
        return end.await;
    }
    let tls = api.tls.clone().map(TlsAcceptor::from);
    info!(%listen, tls = tls.is_some(), "serving the API");
    let herald = tokio::spawn(feed::run(app.clone()));
    let router = router(app.clone());
    let open = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut end = pin!(end);
    loop {
        let (stream, client, place) = tokio::select! {
            () = &mut end => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (router, watcher, tls) = (router.clone(), open.watcher(), tls.clone());
        let metrics = Arc::clone(&app.shared.metrics);
        tokio::spawn(async move {
            let _place = place;
            let stream = Patient::new(stream, PATIENCE, metrics);
            match tls {
                None => connection(stream, client, router, watcher).await,
                Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, client, router, watcher).await,
                    Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
                    Err(_) => debug!("a TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    app.feed.close();
    if timeout(DRAIN, open.shutdown()).await.is_err() {
        warn!("requests under way were cut off");
    }
    // It ends with the feed; only a panic would be an error, and that was printed.
    let _ = herald.await;
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Client, OwnedSemaphorePermit) {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // Answers are small and whole: waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                return (stream, from.ip().into(), place);
            }
            Err(error) => {
                // Out of file descriptors, or the client left already. Accepting again at once would spin.
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection<S>(
    stream: S,
    client: Client,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(client);
        let answer = hyper::service::Service::call(&service, request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection ended early");
    }
}
