//! In which direction a probe was lost, and how delays vary in each: what a stateful reflector's numbers and times tell. Pure.
//!
//! The reflector numbers the requests that reach it, and each reply carries the number of its request. So between two
//! replies it is known how many requests arrived in between. Those of them that were not answered here lost their reply;
//! those that were sent and did not arrive were lost on the way there.
//!
//! ```text
//!  request    0    1    2    3    4    5          sent
//!  arrives    0         1         2    3          numbered by the reflector: 1 and 3 did not arrive
//!  reply      0              ·    2    3          heard: of two lost between 0 and 4, one arrived (number 1), so
//!                                                 one was lost on its way back and one on its way there
//! ```
//!
//! This counts losses of a run, and needs no guess which probe of the run was which. Until a later reply comes nothing is
//! known, and the losses are *pending*: an outage is told apart when it is over. Probes are settled in the order in
//! which they left, once all that may have been numbered before them have ended, so that reordered packets are not
//! taken for lost ones. Two rare things are told wrong: a request that arrives twice, and of whose replies one is lost,
//! looks like another one's lost reply if that other was lost on its way there within the same expiry; and a request that
//! was overtaken, and whose reply is lost then, looks as if it had not arrived.
//!
//! A *stateless* reflector repeats the request's number, which tells nothing. To know it by that, the second number of a
//! session is never used: from then on the number of a request exceeds the count of any reflector that counts. (For the
//! reflector this is one lost request.) Whatever does not fit, such as a count that began anew, makes the losses
//! in between unknown.

use leeward_common::report::{OneWay, Variation};

/// The number that a session's request carries; see the module's text.
pub(crate) fn request_number(sequence: u32) -> u32 {
    sequence.wrapping_add(u32::from(sequence > 0))
}

/// The sequence of the probe whose request carries a number.
pub(crate) fn sequence_of(number: u32) -> Option<u32> {
    match number {
        0 => Some(0),
        1 => None,
        _ => Some(number - 1),
    }
}

/// What a reply says beside the fact that it came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Told {
    /// The reflector's number.
    pub(super) number: u32,
    /// One-way delays, nanoseconds, each with the unknown difference of two clocks in it; `None` where stamps are missing.
    pub(super) delays: Option<Delays>,
}

/// One-way delays with the clocks' difference in them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Delays {
    /// Forward, nanoseconds.
    pub(super) forward_ns: i64,
    /// Backward, nanoseconds.
    pub(super) backward_ns: i64,
    /// Counts the steps of this host's wall clock: delays of two eras cannot be compared.
    pub(super) clock_era: u8,
}

/// How a probe ended that was not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unheard {
    /// Lost.
    Lost,
    /// It never left this host.
    NotSent,
    /// Otherwise: it may or may not have reached the reflector.
    Unclear,
}

#[derive(Clone, Copy, Debug, Default)]
enum Fate {
    #[default]
    UnderWay,
    /// With the reflector's number.
    Heard(u32),
    Ended(Unheard),
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    sequence: u32,
    fate: Fate,
    /// The number of a second reply, to the same request: it arrived twice.
    again: Option<u32>,
    /// Which count of the reflector its numbers are of.
    count: u32,
    /// What had left when it was heard: all before this one.
    left_before: u32,
    /// Whether its number is accounted for.
    explained: bool,
}

/// What is known of a path's directions.
#[derive(Clone, Debug)]
pub(super) struct Directions {
    /// See [`ring`]; by sequence.
    ring: Box<[Place]>,
    /// The oldest probe that is not settled.
    next: u32,
    /// The probe that will leave next.
    until: u32,
    /// Of the last settled reply: the reflector's count and its number. Before the first it is as if -1 had been heard.
    settled: Option<(u32, u32)>,
    /// Settled since, and lost.
    lost: u32,
    /// Settled since, and unclear.
    unclear: u32,
    /// Requests that arrived before the settled reply's, and were not heard of: lost ones, or such as overtook it and are
    /// not settled yet.
    surplus: u32,
    /// The probe at which the surplus grew last.
    surplus_since: u32,
    /// All lost probes whose direction is neither told nor given up.
    pending: u32,
    /// Whether the reflector counts, as far as the present count has shown.
    does_count: bool,
    /// How often the reflector has begun to count anew.
    count: u32,
    /// The highest number heard of the present count.
    highest: Option<u32>,
    /// The latest probe heard, and its number.
    latest: Option<(u32, u32)>,
    /// Of the latest heard, by sequence: only neighbours are compared.
    delays: [Option<(u32, Delays)>; NEIGHBOURS],
}

impl Directions {
    /// Of a path that has `depth` probes under way at most.
    pub(super) fn new(depth: u32) -> Self {
        Self {
            ring: ring(depth),
            next: 0,
            until: 0,
            settled: Some((0, u32::MAX)),
            lost: 0,
            unclear: 0,
            surplus: 0,
            surplus_since: 0,
            pending: 0,
            does_count: false,
            count: 0,
            highest: None,
            latest: None,
            delays: [None; NEIGHBOURS],
        }
    }

    /// The same with another depth. Probes that there is no more room for are unclear.
    pub(super) fn resized(&self, depth: u32) -> Self {
        let mut resized = Self {
            ring: ring(depth),
            ..self.clone()
        };
        let room = resized.ring.len().min(self.ring.len()) as u32;
        for back in (1..=room.min(self.until)).rev() {
            let sequence = self.until - back;
            if let Some(place) = self.place(sequence) {
                *resized.place_mut(sequence) = *place;
            }
        }
        resized
    }

    /// Memory that it takes, bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.ring)
    }

    /// Lost probes of which a later reply may tell where.
    pub(super) const fn pending(&self) -> u32 {
        self.pending
    }

    /// A probe leaves.
    pub(super) fn depart(&mut self, sequence: u32) {
        *self.place_mut(sequence) = Place {
            sequence,
            ..Place::default()
        };
        self.until = sequence.wrapping_add(1);
    }

    /// A probe is answered.
    pub(super) fn heard(&mut self, sequence: u32, told: Told, one_way: &mut OneWay) {
        if !matches!(self.place(sequence), Some(place) if matches!(place.fate, Fate::UnderWay)) {
            return;
        }
        if self.counts_anew(told.number) {
            self.count = self.count.wrapping_add(1);
            (self.highest, self.latest) = (None, None);
            self.does_count = false;
        }
        // The first number is the same of every reflector.
        self.does_count |= sequence > 0 && told.number != request_number(sequence);
        self.note_order(sequence, told.number, one_way);
        self.note_variation(sequence, told.delays, one_way);
        self.delays[sequence as usize % NEIGHBOURS] = told.delays.map(|delays| (sequence, delays));
        let (count, until) = (self.count, self.until);
        let place = self.place_mut(sequence);
        (place.fate, place.count, place.left_before) = (Fate::Heard(told.number), count, until);
        self.settle(one_way);
    }

    /// A probe that was heard is answered again.
    pub(super) fn heard_again(&mut self, sequence: u32, number: u32) {
        let place = self.place_mut(sequence);
        let first = match place.fate {
            Fate::Heard(number) if place.sequence == sequence => number,
            _ => return,
        };
        if number != first {
            place.again = Some(number);
        }
    }

    /// A probe ends unanswered; one that was heard before stays heard.
    pub(super) fn ended(&mut self, sequence: u32, unheard: Unheard, one_way: &mut OneWay) {
        let place = self.place_mut(sequence);
        if place.sequence != sequence || !matches!(place.fate, Fate::UnderWay) {
            return;
        }
        place.fate = Fate::Ended(unheard);
        self.pending += u32::from(unheard == Unheard::Lost);
        self.settle(one_way);
    }

    fn settle(&mut self, one_way: &mut OneWay) {
        while self.next != self.until {
            let place = self.place(self.next).copied().unwrap_or(Place {
                fate: Fate::Ended(Unheard::Unclear),
                ..Place::default()
            });
            match place.fate {
                Fate::UnderWay => return,
                Fate::Ended(Unheard::NotSent) => {}
                Fate::Ended(Unheard::Lost) => self.lost += 1,
                Fate::Ended(Unheard::Unclear) => self.unclear += 1,
                // What overtook it, and arrived before it, is numbered before it too.
                Fate::Heard(_) if self.lost > 0 && self.is_under_way_before(place.left_before) => {
                    return;
                }
                Fate::Heard(number) => self.attribute(self.next, &place, number, one_way),
            }
            self.next = self.next.wrapping_add(1);
        }
    }

    /// All before this reply have ended: what was lost since the last one is told apart.
    fn attribute(&mut self, sequence: u32, place: &Place, number: u32, one_way: &mut OneWay) {
        self.place_mut(sequence).explained = true;
        if !self.does_count && sequence > 0 {
            self.settled = None;
            return self.give_up(one_way);
        }
        let anew = (place.count, number);
        let settled = match self.settled {
            Some((count, settled)) if count == place.count => settled,
            _ => {
                self.settled = Some(anew);
                return self.give_up(one_way);
            }
        };
        let between = number.wrapping_sub(settled).wrapping_sub(1) as i32;
        if between < 0 {
            // Overtaken on its way there: the later number stands.
            self.surplus = self.surplus.saturating_sub(u32::from(!place.explained));
            return;
        }
        self.settled = Some(anew);
        if sequence.wrapping_sub(self.surplus_since) as usize > self.ring.len() {
            // What arrived so long ago was none of the probes that are settled now.
            self.surplus = 0;
        }
        if between == 0 && self.surplus == 0 {
            one_way.forward.lost += self.lost;
            return self.forget();
        }
        let between = between.unsigned_abs();
        if between as usize > self.lost as usize + self.unclear as usize + self.ring.len() {
            return self.give_up(one_way);
        }
        if between > 0 {
            self.surplus_since = sequence;
        }
        self.surplus = (self.surplus + between).saturating_sub(self.explain(place.count, number));
        let (lost, unclear) = (self.lost, self.unclear);
        let backward = match self.surplus {
            0 => 0,
            all if all >= lost + unclear => lost,
            some if unclear == 0 => some,
            _ => return self.give_up(one_way),
        };
        self.surplus -= if backward > 0 { backward + unclear } else { 0 };
        one_way.backward.lost += backward;
        one_way.forward.lost += lost - backward;
        self.forget();
    }

    /// It will not be known where those since the last settled reply were lost.
    fn give_up(&mut self, one_way: &mut OneWay) {
        one_way.lost_unknown += self.lost;
        self.surplus = 0;
        self.forget();
    }

    fn forget(&mut self) {
        self.pending -= self.lost;
        (self.lost, self.unclear) = (0, 0);
    }

    /// How many numbers below this one were heard that were not counted as heard so far, whichever probe they belong to.
    fn explain(&mut self, count: u32, number: u32) -> u32 {
        let mut explained = 0;
        for place in &mut self.ring {
            let Fate::Heard(own) = place.fate else {
                continue;
            };
            if place.count != count {
                continue;
            }
            let is_below = |other: u32| number.wrapping_sub(other).wrapping_sub(1) < 1 << 31;
            if !place.explained && is_below(own) {
                place.explained = true;
                explained += 1;
            }
            explained += u32::from(place.again.take_if(|again| is_below(*again)).is_some());
        }
        explained
    }

    fn is_under_way_before(&self, sequence: u32) -> bool {
        let ahead = sequence.wrapping_sub(self.next);
        let is_under_way = |at: u32| {
            let place = self.place(self.next.wrapping_add(at));
            matches!(place, Some(place) if matches!(place.fate, Fate::UnderWay))
        };
        (0..ahead.min(self.ring.len() as u32)).any(is_under_way)
    }

    /// Whether a number can only be of a count that began anew: it is older than anything under way, or was given before.
    fn counts_anew(&self, number: u32) -> bool {
        let Some(highest) = self.highest else {
            return false;
        };
        let back = highest.wrapping_sub(number) as i32;
        let given = |place: &Place| {
            let same = matches!(place.fate, Fate::Heard(own) if own == number);
            same && place.count == self.count
        };
        back >= 0 && (back as usize > self.ring.len() || self.ring.iter().any(given))
    }

    fn note_order(&mut self, sequence: u32, number: u32, one_way: &mut OneWay) {
        if !self.does_count {
            return;
        }
        let is_after = |a: u32, b: u32| a.wrapping_sub(b) as i32 > 0;
        if self
            .highest
            .is_some_and(|highest| is_after(highest, number))
        {
            one_way.backward.reordered += 1;
        } else {
            self.highest = Some(number);
        }
        match self.latest {
            Some((latest, its_number)) if is_after(latest, sequence) => {
                one_way.forward.reordered += u32::from(is_after(number, its_number));
            }
            _ => self.latest = Some((sequence, number)),
        }
    }

    /// Compares with the probes directly before and after, as far as they were heard.
    fn note_variation(&self, sequence: u32, delays: Option<Delays>, one_way: &mut OneWay) {
        let Some(own) = delays else { return };
        for neighbour in [sequence.wrapping_sub(1), sequence.wrapping_add(1)] {
            let known = self.delays[neighbour as usize % NEIGHBOURS];
            let Some((_, other)) = known.filter(|&(sequence, _)| sequence == neighbour) else {
                continue;
            };
            if other.clock_era == own.clock_era {
                let pairs = [
                    (&mut one_way.forward, own.forward_ns, other.forward_ns),
                    (&mut one_way.backward, own.backward_ns, other.backward_ns),
                ];
                for (direction, own_ns, other_ns) in pairs {
                    record(&mut direction.variation, own_ns.abs_diff(other_ns));
                }
            }
        }
    }

    fn place(&self, sequence: u32) -> Option<&Place> {
        let place = &self.ring[sequence as usize % self.ring.len()];
        let known = self.until.wrapping_sub(sequence).wrapping_sub(1) < self.ring.len() as u32;
        (place.sequence == sequence && known).then_some(place)
    }

    fn place_mut(&mut self, sequence: u32) -> &mut Place {
        &mut self.ring[sequence as usize % self.ring.len()]
    }
}

/// Delays kept: a probe that is heard after three later ones is compared with none of them.
const NEIGHBOURS: usize = 4;

/// Places for the probes under way, and for as many before them: one is settled when those are known that left before its
/// reply came, up to an expiry after its own.
fn ring(depth: u32) -> Box<[Place]> {
    vec![Place::default(); 2 * depth as usize].into()
}

fn record(variation: &mut Variation, differs_ns: u64) {
    variation.record(u32::try_from(differs_ns.saturating_add(500) / 1_000).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests;
