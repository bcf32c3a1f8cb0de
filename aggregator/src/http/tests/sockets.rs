//! Real sockets on loopback: plain, TLS, garbage, an orderly end.

use std::net::SocketAddr;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::*;

struct Server {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn serve(tls: Option<Arc<ServerConfig>>) -> Server {
    let aggregator = Aggregator::at(CALM);
    let mut shared = aggregator.shared;
    shared.api = Arc::new(Api {
        tls,
        ..Api::clone(&shared.api)
    });
    let listener = TcpListener::bind(shared.api.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let task = tokio::spawn(super::super::serve(shared, listener, async {
        let _ = ended.await;
    }));
    Server { address, end, task }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A TLS peer may close without saying so; what was read counts.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn the_api_answers_on_a_socket_and_ends_when_told() {
    let server = serve(None).await;
    let answer = ask(TcpStream::connect(server.address).await.unwrap(), HEALTHZ).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let idle = TcpStream::connect(server.address).await.unwrap();
    server.end.send(()).unwrap();
    timeout(DEADLINE, server.task).await.unwrap().unwrap();
    drop(idle);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn garbage_is_refused_and_others_are_served() {
    let server = serve(None).await;
    let answer = ask(
        TcpStream::connect(server.address).await.unwrap(),
        "\x16\x03\x01 what\r\n\r\n",
    )
    .await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    let answer = ask(TcpStream::connect(server.address).await.unwrap(), HEALTHZ).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn with_a_certificate_only_tls_is_spoken() {
    let (server_config, client_config) = configs();
    let server = serve(Some(server_config)).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(client_config)
        .connect(name, stream)
        .await
        .unwrap();
    let answer = ask(stream, HEALTHZ).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let answer = ask(TcpStream::connect(server.address).await.unwrap(), HEALTHZ).await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}
