//! Connections whose events nobody takes for a while.

use tokio::{sync::mpsc, task::yield_now};

use super::*;
use crate::bgp::peer::Down;

const LONG: Duration = Duration::from_secs(30);

/// Both ends of a connection over loopback: ours first.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = TcpStream::connect(listener.local_addr().unwrap()).await;
    (listener.accept().await.unwrap().0, other.unwrap())
}

async fn next(hearing: &mut mpsc::Receiver<Heard>) -> Vec<Event> {
    let heard = timeout(LONG, hearing.recv()).await.unwrap();
    let (_, events) = heard.expect("nothing is heard any more");
    events.into_iter().map(|(_, event)| event).collect()
}

/// A message of BMP about a neighbour at 10.9.9.9.
fn about_neighbour(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![3];
    message.extend(u32::try_from(48 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend([0; 22]);
    message.extend([10, 9, 9, 9, 0, 0, 0xfb, 0xf5, 10, 9, 9, 9]);
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// The end of its table, before policy.
fn end_of_table() -> Vec<u8> {
    let update = [&[0xff; 16][..], &[0, 23, 2, 0, 0, 0, 0]].concat();
    about_neighbour(0, &update)
}

#[tokio::test]
async fn what_a_router_said_before_it_connects_anew_is_not_lost_while_nobody_takes_it() {
    let (shared, mut hearing, _again) = Shared::alone();
    let (stream, mut router) = pair().await;
    let (replace, replaced) = oneshot::channel();
    let hears = shared.clone();
    let from = IpAddr::from([127, 0, 0, 1]);
    let task = tokio::spawn(async move { hear_router(stream, from, replaced, &hears).await });
    router.write_all(&end_of_table()).await.unwrap();
    let first = next(&mut hearing).await;
    assert!(
        matches!(first[..], [Event::Up { .. }, Event::Update(_)]),
        "{first:?}"
    );
    // Nobody takes anything; the neighbour goes down, and what nobody understands shows that this was read.
    let filler = (shared.clock.now(), Vec::new());
    shared.heard.send(filler).await.unwrap();
    let down = about_neighbour(2, &[4]);
    let odd = vec![3, 0, 0, 0, 6, 77];
    router.write_all(&[down, odd].concat()).await.unwrap();
    let is_read = async {
        while shared.figures.refused.load(Relaxed) == 0 {
            yield_now().await;
        }
    };
    timeout(LONG, is_read).await.unwrap();
    replace.send(()).unwrap();
    // Before there is room again.
    yield_now().await;
    assert!(next(&mut hearing).await.is_empty(), "what filled it");
    let last = next(&mut hearing).await;
    assert!(
        matches!(&last[..], [Event::Down(Down::SessionLost(_))]),
        "{last:?}"
    );
    task.await.unwrap();
}

/// A message of BGP.
fn bgp(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16][..], &length, &[kind], body].concat()
}

/// The kind of the next message.
async fn kind(stream: &mut TcpStream) -> u8 {
    let mut header = [0; 19];
    let read = timeout(LONG, stream.read_exact(&mut header)).await;
    read.unwrap().unwrap();
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    stream.read_exact(&mut vec![0; length - 19]).await.unwrap();
    header[18]
}

#[tokio::test]
async fn a_peer_hears_that_we_are_there_while_nobody_takes_what_it_said_and_is_not_called_silent() {
    let (shared, mut hearing, _again) = Shared::alone();
    let (stream, mut other) = pair().await;
    let peer = session::Peer {
        address: [127, 0, 0, 1].into(),
        system: 64_501,
        own_system: 64_500,
        router_id: [10, 0, 0, 1].into(),
        hold_time: Duration::from_secs(3),
    };
    let filler = (shared.clock.now(), Vec::new());
    shared.heard.send(filler).await.unwrap();
    let hears = shared.clone();
    let task = tokio::spawn(async move { follow_peer(stream, &peer, &hears).await });
    // Its OPEN: version 4, AS 64501, three seconds, 10.0.0.2, and that it has numbers of four bytes.
    let open = [
        4, 0xfb, 0xf5, 0, 3, 10, 0, 0, 2, 8, 2, 6, 65, 4, 0, 0, 0xfb, 0xf5,
    ];
    other.write_all(&bgp(1, &open)).await.unwrap();
    other.write_all(&bgp(4, &[])).await.unwrap();
    assert_eq!(kind(&mut other).await, 1, "our OPEN");
    // One a second, beyond the hold time; it answers, and nobody reads that.
    let mut keepalives = 0;
    while keepalives < 6 {
        match kind(&mut other).await {
            2 => {}
            4 => keepalives += 1,
            other => panic!("a message of kind {other}"),
        }
        other.write_all(&bgp(4, &[])).await.unwrap();
    }
    assert!(next(&mut hearing).await.is_empty(), "what filled it");
    assert_eq!(next(&mut hearing).await, [Event::Up { system: 64_501 }]);
    other.write_all(&bgp(2, &[0; 4])).await.unwrap();
    let then = next(&mut hearing).await;
    assert!(matches!(then[..], [Event::Update(_)]), "{then:?}");
    drop(other);
    assert!(matches!(next(&mut hearing).await[..], [Event::Down(_)]));
    task.await.unwrap();
}
