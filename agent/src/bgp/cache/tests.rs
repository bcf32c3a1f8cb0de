//! Caches over loopback that send what they like.

use leeward_common::bgp::Validity;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// Messages of RFC 8210, section 5.
mod message {
    pub(super) fn of(kind: u8, session: u16, body: &[u8]) -> Vec<u8> {
        let mut message = vec![1, kind];
        message.extend(session.to_be_bytes());
        message.extend(u32::try_from(8 + body.len()).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    pub(super) fn response() -> Vec<u8> {
        of(3, 7, &[])
    }

    /// 192.0.2.0/24 up to /25 of a system below 256.
    pub(super) fn payload(flags: u8, system: u8) -> Vec<u8> {
        of(4, 0, &[flags, 24, 25, 0, 192, 0, 2, 0, 0, 0, 0, system])
    }

    pub(super) fn end(serial: u8) -> Vec<u8> {
        end_with(serial, [3_600, 600, 7_200])
    }

    /// After how many seconds to ask again, to try again, and to forget.
    pub(super) fn end_with(serial: u8, intervals: [u32; 3]) -> Vec<u8> {
        let mut body = vec![0, 0, 0, serial];
        for interval in intervals {
            body.extend(interval.to_be_bytes());
        }
        of(7, 7, &body)
    }

    pub(super) fn notify(serial: u8) -> Vec<u8> {
        of(0, 7, &[0, 0, 0, serial])
    }
}

/// A cache on loopback that the agent follows.
struct Rig {
    listener: TcpListener,
    told: mpsc::Receiver<Authorizations>,
    figures: Arc<Figures>,
}

impl Rig {
    async fn new() -> Self {
        Self::patient(PATIENCE).await
    }

    async fn patient(patience: Patience) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cache = listener.local_addr().unwrap().to_string();
        let (tell, told) = mpsc::channel(WAITING);
        let figures = Arc::new(Figures::default());
        tokio::spawn(follow_patiently(
            vec![cache],
            figures.clone(),
            tell,
            patience,
        ));
        Self {
            listener,
            told,
            figures,
        }
    }

    /// The next connection, after its question.
    async fn asked(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        question(&mut stream).await;
        stream
    }

    async fn told(&mut self) -> Authorizations {
        let told = timeout(Duration::from_secs(30), self.told.recv()).await;
        told.unwrap().unwrap()
    }

    /// The systems that may announce 192.0.2.0/24 among the first ten.
    async fn known(&mut self) -> Vec<u32> {
        let Authorizations::Known(roas) = self.told().await else {
            panic!("nothing is known");
        };
        let prefix = "192.0.2.0/24".parse().unwrap();
        let valid = |system: &u32| roas.validate(&prefix, Some(*system)) == Validity::Valid;
        (1..10).filter(valid).collect()
    }
}

/// Reads a question; its kind.
async fn question(stream: &mut TcpStream) -> u8 {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.unwrap();
    let mut rest = vec![0; usize::from(header[7]) - 8];
    stream.read_exact(&mut rest).await.unwrap();
    header[1]
}

async fn send(stream: &mut TcpStream, messages: &[Vec<u8>]) {
    stream.write_all(&messages.concat()).await.unwrap();
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = async {
        loop {
            match stream.read(&mut [0; 512]).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    timeout(Duration::from_secs(30), read).await.is_ok()
}

#[tokio::test]
async fn a_set_counts_when_it_is_whole_and_the_connection_lasts() {
    let mut rig = Rig::new().await;
    let mut first = rig.asked().await;
    send(&mut first, &[message::response(), message::payload(1, 1)]).await;
    drop(first);
    let mut second = rig.asked().await;
    let whole = [
        message::response(),
        message::payload(1, 2),
        message::payload(1, 3),
        message::end(1),
    ];
    send(&mut second, &whole).await;
    assert_eq!(rig.known().await, [2, 3], "half a set was told before");
    assert_eq!(rig.figures.roas.load(Relaxed), 2);
    // What changed since.
    send(&mut second, &[message::notify(2)]).await;
    assert_eq!(question(&mut second).await, 1);
    let change = [
        message::response(),
        message::payload(0, 2),
        message::payload(1, 4),
        message::end(2),
    ];
    send(&mut second, &change).await;
    assert_eq!(rig.known().await, [3, 4]);
    drop(second);
    assert!(matches!(rig.told().await, Authorizations::Unknown));
    assert_eq!(rig.figures.roas.load(Relaxed), 0);
    // Another life of the cache: nothing of the former is left.
    let mut third = rig.asked().await;
    let whole = [message::response(), message::payload(1, 9), message::end(1)];
    send(&mut third, &whole).await;
    assert_eq!(rig.known().await, [9]);
}

/// A set is known of a cache that says nothing more, is connected all the same, and is given up in the end.
async fn is_given_up(patience: Patience, intervals: [u32; 3]) {
    let mut rig = Rig::patient(patience).await;
    let mut stream = rig.asked().await;
    let end = message::end_with(1, intervals);
    send(
        &mut stream,
        &[message::response(), message::payload(1, 2), end],
    )
    .await;
    assert_eq!(rig.known().await, [2]);
    assert!(matches!(rig.told().await, Authorizations::Unknown));
    assert_eq!(rig.figures.roa_caches.load(Relaxed), 0);
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn a_cache_that_falls_silent_is_not_believed_for_ever() {
    // It is asked after a second whether anything changed, and does not answer; the same time is given to its first set.
    let patience = Patience {
        send: Duration::from_secs(10),
        ..PATIENCE
    };
    is_given_up(patience, [1, 600, 7_200]).await;
}

#[tokio::test]
async fn data_that_are_too_old_are_none() {
    let patience = Patience {
        expire: Duration::ZERO..=Duration::from_secs(1),
        ..PATIENCE
    };
    is_given_up(patience, [86_400, 600, 7_200]).await;
}

#[tokio::test]
async fn what_cannot_be_ends_the_connection_and_nothing_else() {
    let mut rig = Rig::new().await;
    let long = {
        let mut message = message::payload(1, 1);
        message[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        message
    };
    let short = message::of(3, 7, &[])[..7]
        .iter()
        .copied()
        .chain([7])
        .collect();
    let mut beyond = message::payload(1, 1);
    beyond[9] = 33;
    for hostile in [
        vec![long],
        vec![short],
        vec![message::response(), beyond],
        vec![message::of(2, 0, &[])],
        vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
    ] {
        let mut stream = rig.asked().await;
        send(&mut stream, &hostile).await;
        assert!(is_closed(&mut stream).await, "{hostile:?}");
    }
    let mut stream = rig.asked().await;
    let whole = [message::response(), message::payload(1, 5), message::end(1)];
    send(&mut stream, &whole).await;
    assert_eq!(rig.known().await, [5]);
}

#[tokio::test]
async fn of_several_caches_the_first_that_answers_is_followed() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let preferred = gone.local_addr().unwrap().to_string();
    drop(gone);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::channel(WAITING);
    tokio::spawn(follow(vec![preferred, other], Arc::default(), tell));
    let mut rig = Rig {
        listener,
        told,
        figures: Arc::default(),
    };
    let mut stream = rig.asked().await;
    let whole = [message::response(), message::payload(1, 5), message::end(1)];
    send(&mut stream, &whole).await;
    assert_eq!(rig.known().await, [5]);
}

/// Any bytes, in any pieces: lengths are believed within their bounds only, and nothing panics.
#[test]
fn the_lengths_of_messages_are_followed_through_any_bytes() {
    bolero::check!()
        .with_type::<(Vec<u8>, Vec<u8>)>()
        .for_each(|(bytes, cuts)| {
            let mut whole = Guarded::new(());
            let mut cut = Guarded::new(());
            let ends_well = whole.look(bytes).is_ok();
            let (mut rest, mut ends_cut_well) = (&bytes[..], true);
            for length in cuts {
                let (piece, after) = rest.split_at(rest.len().min(usize::from(*length)));
                ends_cut_well &= !ends_cut_well || cut.look(piece).is_ok();
                rest = after;
            }
            ends_cut_well &= !ends_cut_well || cut.look(rest).is_ok();
            assert_eq!(ends_well, ends_cut_well);
        });
}
