use proptest::prelude::*;

use super::*;

const REQUEST: Request = Request {
    sequence: 0x0102_0304,
    time: Stamp(0x1112_1314_1516_1718),
    error: ErrorEstimate(0x8a2b),
    ssid: 0xabcd,
};
const REPLY: Reply = Reply {
    sequence: 0x0908_0706,
    time: Stamp(0x3132_3334_3536_3738),
    received: Stamp(0x2122_2324_2526_2728),
    error: ErrorEstimate(0xc102),
    request: REQUEST,
    ttl: 63,
};

/// RFC 8762 figure 2, with RFC 8972 figure 1's SSID.
#[rustfmt::skip]
const OPEN_REQUEST: [u8; OPEN_BYTES] = [
    1, 2, 3, 4,
    0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
    0x8a, 0x2b, 0xab, 0xcd,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// RFC 8762 figure 5, with the SSID of RFC 8972 figure 2.
#[rustfmt::skip]
const OPEN_REPLY: [u8; OPEN_BYTES] = [
    9, 8, 7, 6,
    0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38,
    0xc1, 0x02, 0xab, 0xcd,
    0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
    1, 2, 3, 4,
    0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
    0x8a, 0x2b, 0, 0,
    63, 0, 0, 0,
];

/// RFC 8762 figure 3, with the SSID; the HMAC is another implementation's, of key 00 01 … 0f.
#[rustfmt::skip]
const SEALED_REQUEST: [u8; SEALED_BYTES] = [
    1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x8a, 0x2b, 0xab, 0xcd, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x8a, 0xc0, 0xa3, 0x75, 0x3b, 0x43, 0x98, 0xcf, 0xad, 0xfb, 0x48, 0x79, 0xaf, 0xc7, 0x0b, 0x91,
];

/// RFC 8762 figure 6, with the SSID; the HMAC is another implementation's.
#[rustfmt::skip]
const SEALED_REPLY: [u8; SEALED_BYTES] = [
    9, 8, 7, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0xc1, 0x02, 0xab, 0xcd, 0, 0, 0, 0,
    0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x8a, 0x2b, 0, 0, 0, 0, 0, 0,
    63, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x42, 0x66, 0xcf, 0x84, 0x46, 0xcf, 0xe9, 0xc4, 0xf7, 0x0f, 0x61, 0x70, 0x6f, 0x0e, 0x8b, 0xe6,
];

fn key() -> Key {
    Key::parse("000102030405060708090a0b0c0d0e0f").unwrap()
}

#[test]
fn packets_have_the_bytes_of_the_standard() {
    let key = key();
    assert_eq!(*REQUEST.encode(None), OPEN_REQUEST);
    assert_eq!(*REPLY.encode(None, &OPEN_REQUEST), OPEN_REPLY);
    assert_eq!(*REQUEST.encode(Some(&key)), SEALED_REQUEST);
    assert_eq!(*REPLY.encode(Some(&key), &SEALED_REQUEST), SEALED_REPLY);
}

#[test]
fn what_was_cut_is_no_packet() {
    let key = key();
    for length in 0..OPEN_BYTES {
        let cut = &OPEN_REPLY[..length];
        assert_eq!(Request::decode(cut, None), Err(Refusal::Truncated));
        assert_eq!(Reply::decode(cut, None), Err(Refusal::Truncated));
    }
    for length in 0..SEALED_BYTES {
        let cut = &SEALED_REPLY[..length];
        assert_eq!(Request::decode(cut, Some(&key)), Err(Refusal::Truncated));
        assert_eq!(Reply::decode(cut, Some(&key)), Err(Refusal::Truncated));
    }
}

#[test]
fn every_bit_of_an_authenticated_packet_is_proven() {
    let key = key();
    for bit in 0..SEALED_BYTES * 8 {
        let mut changed = SEALED_REQUEST;
        changed[bit / 8] ^= 1 << (bit % 8);
        let read = Request::decode(&changed, Some(&key));
        assert_eq!(read, Err(Refusal::Unproven), "bit {bit}");
    }
    let other = Key::parse("00000000000000000000000000000000").unwrap();
    let read = Reply::decode(&SEALED_REPLY, Some(&other));
    assert_eq!(read, Err(Refusal::Unproven));
}

#[test]
fn a_reply_is_no_request_but_a_request_with_rubbish_in_it_is_one() {
    let key = key();
    assert_eq!(Request::decode(&OPEN_REPLY, None), Err(Refusal::Reply));
    assert_eq!(
        Request::decode(&SEALED_REPLY, Some(&key)),
        Err(Refusal::Reply)
    );
    let mut rubbish = OPEN_REQUEST;
    rubbish[36..].fill(0xff);
    assert_eq!(Request::decode(&rubbish, None), Ok(REQUEST));
}

#[test]
fn what_follows_the_base_packet_comes_back_marked() {
    let mut request = OPEN_REQUEST.to_vec();
    // Padding of two bytes; then one that claims more than there is.
    request.extend([0x00, 1, 0, 2, 7, 7, 0x20, 9, 0, 5, 8]);
    let reply = REPLY.encode(None, &request);
    assert_eq!(reply.len(), request.len());
    assert_eq!(reply[..OPEN_BYTES], OPEN_REPLY);
    assert_eq!(reply[OPEN_BYTES..], [0x80, 1, 0, 2, 7, 7, 0xe0, 9, 0, 5, 8]);
}

#[test]
fn a_reflector_whose_times_make_no_sense_took_an_unknown_time() {
    let ns = 1_700_000_000_000_000_000;
    let took = |received, time, format| {
        let reply = Reply {
            received: Stamp::of(format, received),
            time: Stamp::of(format, time),
            error: ErrorEstimate::unknown(format),
            ..REPLY
        };
        reply.dwell_ns()
    };
    for format in [Format::Ntp, Format::Ptp] {
        assert_eq!(took(ns, ns + 12_345, format), Some(12_345));
        assert_eq!(took(ns + 1, ns, format), None);
    }
    let never = Reply {
        time: Stamp(u64::MAX),
        error: ErrorEstimate::unknown(Format::Ptp),
        ..REPLY
    };
    assert_eq!(never.dwell_ns(), None);
}

fn request() -> impl Strategy<Value = Request> {
    (any::<u32>(), any::<u64>(), any::<u16>(), any::<u16>()).prop_map(
        |(sequence, time, error, ssid)| Request {
            sequence,
            time: Stamp(time),
            error: ErrorEstimate(error),
            ssid,
        },
    )
}

fn reply() -> impl Strategy<Value = Reply> {
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u16>());
    (numbers, request(), any::<u8>()).prop_map(
        |((sequence, time, received, error), request, ttl)| Reply {
            sequence,
            time: Stamp(time),
            received: Stamp(received),
            error: ErrorEstimate(error),
            request,
            ttl,
        },
    )
}

proptest! {
    #[test]
    fn every_request_is_read_back(request in request(), sealed: bool) {
        let key = sealed.then(key);
        let packet = request.encode(key.as_ref());
        prop_assert_eq!(Request::decode(&packet, key.as_ref()), Ok(request));
        let start = packet.first_chunk().unwrap();
        prop_assert_eq!(Request::quoted(start)[usize::from(sealed)], Some(request));
    }

    /// And it is never longer, nor shorter, than the request: nobody can use a reflector as an amplifier.
    #[test]
    fn every_reply_is_read_back_and_as_long_as_its_request(
        reply in reply(), sealed: bool, rest in prop::collection::vec(any::<u8>(), 0..140),
    ) {
        let key = sealed.then(key);
        let mut request = reply.request.encode(key.as_ref()).to_vec();
        request.extend(rest);
        let packet = reply.encode(key.as_ref(), &request);
        prop_assert_eq!(packet.len(), request.len());
        prop_assert_eq!(Reply::decode(&packet, key.as_ref()), Ok(reply));
    }
}

#[test]
fn no_bytes_make_the_parsers_panic() {
    let key = key();
    bolero::check!()
        .with_iterations(100_000)
        .for_each(|bytes: &[u8]| {
            for key in [None, Some(&key)] {
                if let Ok(request) = Request::decode(bytes, key) {
                    let _ = Reply { request, ..REPLY }.encode(key, bytes);
                }
                if let Ok(reply) = Reply::decode(bytes, key) {
                    let _ = reply.dwell_ns();
                }
            }
            let _ = bytes.first_chunk().map(Request::quoted);
            let mut tlvs = bytes.to_vec();
            mark_unrecognized(&mut tlvs);
        });
}
