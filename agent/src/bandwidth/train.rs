//! A train of packets of one size, and what its passage tells. [pure]
//!
//! A queue that is never empty while the train passes works at the link's rate, and what it sends out in that time
//! is the train and the traffic of others that came in between:
//!
//! ```text
//!   capacity × out  =  bits of the train  +  cross traffic × in
//! ```
//!
//! `in` is how long the train took to leave the sender, `out` how long it took to arrive. Everything is made from that.
//!
//! Cards that gather packets before they interrupt (interrupt coalescing) give the packets of one batch nearly one
//! arrival time. Gaps within a train then tell nothing, but whole batches still do when there are enough of them
//! (Prasad, Jain, Dovrolis, "Effects of Interrupt Coalescence on Network Measurements", PAM 2004).

/// One packet that arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Passage {
    /// When it left, nanoseconds of the sender's clock.
    pub sent_ns: u64,
    /// When it arrived, nanoseconds of the receiver's clock.
    pub received_ns: u64,
}

/// Why a train tells nothing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Spoiled {
    /// No reply came at all.
    Unanswered,
    /// More than a tenth was lost.
    Lost,
    /// Packets arrived in another order than they left.
    Reordered,
    /// This host did not send as evenly as it was to.
    Uneven,
    /// Arrival times come in batches too large for the train.
    Coalesced,
    /// A clock was set meanwhile.
    Clock,
}

impl Spoiled {
    /// In words, as the end of "n trains …".
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unanswered => "were not answered",
            Self::Lost => "lost more than a tenth of their packets",
            Self::Reordered => "were reordered",
            Self::Uneven => "did not leave this host evenly",
            Self::Coalesced => {
                "arrived in batches: the receiving host gathers packets before it stamps them"
            }
            Self::Clock => "saw a clock being set",
        }
    }
}

/// What a train's passage tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Bits that arrived within `out_s`, headers of IP and above.
    pub bits: f64,
    /// How long they took to leave, seconds.
    pub in_s: f64,
    /// How long they took to arrive, seconds.
    pub out_s: f64,
}

impl Span {
    /// Bits per second out of the sender.
    #[must_use]
    pub fn in_bps(&self) -> f64 {
        self.bits / self.in_s
    }

    /// Bits per second into the receiver.
    #[must_use]
    pub fn out_bps(&self) -> f64 {
        self.bits / self.out_s
    }
}

/// The fewest packets that tell something.
const PACKETS_MIN: usize = 6;
/// The fewest batches that make up for being batches; the first and the last are not used.
const BATCHES_MIN: usize = 10;
/// A gap shorter than this share of the mean is none: two packets of a batch.
const NO_GAP: f64 = 0.2;
/// So many of all gaps may be none before the train counts as coalesced.
const NO_GAPS_MAX: f64 = 0.15;
/// How much of a paced train's time a packet may be late by.
const LATE_MAX: f64 = 0.1;
/// By how much faster than it left a train may arrive: a queue that empties behind others' packets draws it together a little.
const DRAWN_TOGETHER: f64 = 1.3;
/// A train that takes longer saw a clock being set.
const LONGEST_S: f64 = 5.0;

/// Reads a train of which `sent` packets of `bytes` left; `passages` are those that arrived, in the order of sending.
/// `paced` trains were to leave evenly.
///
/// # Errors
///
/// Returns why it tells nothing.
pub fn read(bytes: u32, sent: usize, paced: bool, passages: &[Passage]) -> Result<Span, Spoiled> {
    if passages.is_empty() {
        return Err(Spoiled::Unanswered);
    }
    if passages.len() * 10 < sent * 9 || passages.len() < PACKETS_MIN {
        return Err(Spoiled::Lost);
    }
    if !passages.is_sorted_by_key(|own| own.sent_ns) {
        return Err(Spoiled::Clock);
    }
    if !passages.is_sorted_by_key(|own| own.received_ns) {
        return Err(Spoiled::Reordered);
    }
    let (first, last) = (passages[0], passages[passages.len() - 1]);
    let in_s = seconds(first.sent_ns, last.sent_ns);
    let out_s = seconds(first.received_ns, last.received_ns);
    if in_s <= 0.0 || out_s <= 0.0 || in_s > LONGEST_S || out_s > LONGEST_S {
        return Err(Spoiled::Clock);
    }
    if in_s > DRAWN_TOGETHER * out_s {
        return Err(Spoiled::Coalesced);
    }
    if paced && is_uneven(passages, in_s) {
        return Err(Spoiled::Uneven);
    }
    let packet_bits = f64::from(bytes) * 8.0;
    let gaps: Vec<f64> = passages
        .windows(2)
        .map(|pair| seconds(pair[0].received_ns, pair[1].received_ns))
        .collect();
    let mean = out_s / gaps.len() as f64;
    let none = gaps.iter().filter(|gap| **gap < NO_GAP * mean).count();
    if none as f64 > NO_GAPS_MAX * gaps.len() as f64 {
        return batches(packet_bits, passages, &gaps, mean);
    }
    Ok(Span {
        bits: packet_bits * gaps.len() as f64,
        in_s,
        out_s,
    })
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

/// Whether a packet left much later than its place in the train says.
fn is_uneven(passages: &[Passage], in_s: f64) -> bool {
    let start = passages[0].sent_ns;
    let gap = in_s / (passages.len() - 1) as f64;
    passages.iter().enumerate().any(|(n, own)| {
        let late = seconds(start, own.sent_ns) - gap * n as f64;
        // Lost packets leave holes of a few gaps.
        late.abs() > (LATE_MAX * in_s).max(2.5 * gap)
    })
}

/// From the second batch to the last but one: what arrived between is known to a packet or two.
fn batches(
    packet_bits: f64,
    passages: &[Passage],
    gaps: &[f64],
    mean: f64,
) -> Result<Span, Spoiled> {
    let begins = |gap: &f64| *gap >= NO_GAP * mean;
    let starts: Vec<usize> = std::iter::once(0)
        .chain((1..passages.len()).filter(|at| begins(&gaps[at - 1])))
        .collect();
    if starts.len() < BATCHES_MIN {
        return Err(Spoiled::Coalesced);
    }
    let (from, to) = (starts[1], starts[starts.len() - 2]);
    let in_s = seconds(passages[from].sent_ns, passages[to].sent_ns);
    let out_s = seconds(passages[from].received_ns, passages[to].received_ns);
    if in_s <= 0.0 || out_s <= 0.0 || to - from < 2 * BATCHES_MIN {
        return Err(Spoiled::Coalesced);
    }
    Ok(Span {
        bits: packet_bits * (to - from) as f64,
        in_s,
        out_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(count: u64, in_gap_ns: u64, out_gap_ns: u64) -> Vec<Passage> {
        let passage = |n| Passage {
            sent_ns: 1_000_000 + n * in_gap_ns,
            received_ns: 77_000_000 + n * out_gap_ns,
        };
        (0..count).map(passage).collect()
    }

    #[test]
    fn an_even_train_tells_its_rates() {
        let span = read(1_000, 20, true, &even(20, 10_000, 80_000)).unwrap();
        assert!((span.in_bps() - 800e6).abs() < 1.0, "{span:?}");
        assert!((span.out_bps() - 100e6).abs() < 1.0, "{span:?}");
    }

    #[test]
    fn what_tells_nothing_is_refused_with_its_reason() {
        let good = even(20, 10_000, 80_000);
        assert_eq!(read(1_000, 20, true, &[]), Err(Spoiled::Unanswered));
        assert_eq!(read(1_000, 25, true, &good), Err(Spoiled::Lost));
        let mut swapped = good.clone();
        swapped[3].received_ns = swapped[5].received_ns;
        assert_eq!(read(1_000, 20, true, &swapped), Err(Spoiled::Reordered));
        let mut set = good.clone();
        set[7].sent_ns = 0;
        assert_eq!(read(1_000, 20, true, &set), Err(Spoiled::Clock));
        let mut far = good.clone();
        far[19].received_ns += 10_000_000_000;
        assert_eq!(read(1_000, 20, true, &far), Err(Spoiled::Clock));
        let mut late = good.clone();
        late[10..].iter_mut().for_each(|own| own.sent_ns += 200_000);
        assert_eq!(read(1_000, 20, true, &late), Err(Spoiled::Uneven));
        assert!(read(1_000, 20, false, &late).is_ok());
    }

    #[test]
    fn batches_are_noticed_and_enough_of_them_still_tell_the_rate() {
        let batched = |count: u64, step_ns: u64| -> Vec<Passage> {
            let mut train = even(count, 10_000, 80_000);
            for own in &mut train {
                own.received_ns = own.received_ns.div_ceil(step_ns) * step_ns;
            }
            train
        };
        let few = batched(60, 1_000_000);
        assert_eq!(read(1_000, 60, false, &few), Err(Spoiled::Coalesced));
        let span = read(1_000, 96, false, &batched(96, 400_000)).unwrap();
        assert!((span.out_bps() / 100e6 - 1.0).abs() < 0.06, "{span:?}");
    }
}
