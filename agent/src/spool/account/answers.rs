//! What came of what was to be done on disk: answers change what waits, where it is, and what the disk is taken for. [pure]

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        Change, Spool, TableOf, Waiting,
        log::{Answer, Failed, Group, Location, Serial, Trouble},
        record::{Message, Replaced, Table},
    },
    DiskAccount, READ_ATTEMPTS,
};

impl Spool {
    /// Takes note of what came of a command.
    pub fn on_answer(&mut self, now: Duration, answer: Answer) -> Vec<Change> {
        let mut changes = Vec::new();
        match answer {
            Answer::Recovered {
                segment,
                tables,
                messages,
                replaced,
                damages,
                failed: None,
            } => {
                self.on_replaced(segment, &replaced);
                self.on_recovered(now, segment, tables, messages, damages, &mut changes);
            }
            Answer::Recovered {
                failed: Some(failed),
                ..
            } => {
                if let Some(disk) = &mut self.disk {
                    disk.is_recovering = false;
                    disk.fails(now, failed);
                }
            }
            Answer::Appended { written, failed } => {
                self.on_appended(now, &written, failed, &mut changes);
            }
            Answer::Read { place, frame } => self.on_read(now, place, frame, &mut changes),
            Answer::Coarsened { groups, failed } => {
                self.on_coarsened(now, groups, failed.as_ref(), &mut changes);
            }
            Answer::Removed(segment, failed) => self.on_removed(now, segment, failed),
            Answer::Synced => {
                if let Some(disk) = &mut self.disk {
                    disk.is_writing = false;
                    disk.is_synced = true;
                }
            }
        }
        changes
    }

    fn on_appended(
        &mut self,
        now: Duration,
        written: &[(u64, Location)],
        failed: Option<Failed>,
        changes: &mut Vec<Change>,
    ) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        disk.is_writing = false;
        for &(place, location) in written {
            let segment = disk.segments.entry(location.segment).or_default();
            segment.boot_epoch = self.boot_epoch;
            segment.reach(location);
            self.counts.written += 1;
            if let Some(message) = self.waiting.get_mut(&place) {
                message.location = Some(location);
                disk.took(location);
                self.cached.insert(place);
            }
        }
        match failed {
            // What was read or removed in vain is tried at once.
            None => disk.trouble = None,
            Some(failed) => {
                self.counts.write_errors += 1;
                let left_behind = failed.left_behind;
                disk.fails(now, failed);
                let lost = self.waiting.iter_mut().filter(|(place, message)| {
                    message.location.is_none() && !self.unwritten.contains(place)
                });
                let lost: Vec<u64> = lost
                    .map(|(&place, message)| {
                        message.stays |= left_behind;
                        place
                    })
                    .collect();
                self.unwritten.extend(lost);
            }
        }
        self.make_room(now, changes);
    }

    fn on_read(
        &mut self,
        now: Duration,
        place: u64,
        frame: Result<Vec<u8>, Trouble>,
        changes: &mut Vec<Change>,
    ) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        disk.reading.remove(&place);
        let Some(message) = self.waiting.get_mut(&place) else {
            return;
        };
        match frame {
            // Memory may be exceeded by what is read ahead; it is sent at once, or makes room for what comes next.
            Ok(frame) if message.frame.is_none() && message.location.is_some() => {
                self.held_bytes += frame.len();
                message.frame = Some(Arc::from(frame));
                self.cached.insert(place);
            }
            Ok(_) => {}
            Err(trouble) if !trouble.is_lasting && disk.is_tried_again(place) => {
                let why = format!("cannot read {}: {}", trouble.file, trouble.what);
                disk.fails(
                    now,
                    Failed {
                        is_full: false,
                        left_behind: false,
                        why,
                    },
                );
            }
            Err(trouble) => {
                self.counts.damaged += 1;
                disk.tell(trouble);
                self.give_up(place, changes);
            }
        }
    }

    fn on_coarsened(
        &mut self,
        now: Duration,
        groups: Vec<(Group, Option<(Message, Location)>)>,
        failed: Option<&Failed>,
        changes: &mut Vec<Change>,
    ) {
        if let Some(disk) = &mut self.disk {
            disk.is_merging = false;
            if let Some(failed) = failed {
                self.counts.write_errors += 1;
                disk.fails(now, failed.clone());
            }
        }
        for (group, merged) in groups {
            let places: Vec<u64> = group.members.iter().map(|&(place, ..)| place).collect();
            match merged {
                Some((message, location)) => {
                    let is_moved = group.members.iter().any(|own| own.1 == message.key);
                    if let Some(disk) = &mut self.disk {
                        let segment = disk.segments.entry(location.segment).or_default();
                        segment.boot_epoch = self.boot_epoch;
                        segment.reach(location);
                        // A message that has moved has one name in both places.
                        let parts = group.members.iter().map(|(_, _, at)| at.segment);
                        let parts = parts.filter(|&of| !is_moved && of != location.segment);
                        segment.waits_for.extend(parts);
                    }
                    match is_moved {
                        true => self.on_moved(places[0], location),
                        false => self.replace(now, &places, message, Some(location), changes),
                    }
                }
                None => {
                    if let (Some(disk), [(_, _, at)], None) =
                        (&mut self.disk, &group.members[..], failed)
                        && let Some(segment) = disk.segments.get_mut(&at.segment)
                    {
                        segment.stays = true;
                    }
                    for place in places {
                        if let Some(message) = self.waiting.get_mut(&place) {
                            message.is_being_merged = false;
                            // A full disk has no room for what they would become either.
                            message.stays = true;
                        }
                    }
                }
            }
        }
        self.make_room(now, changes);
    }

    fn on_moved(&mut self, place: u64, location: Location) {
        let (Some(disk), Some(message)) = (&mut self.disk, self.waiting.get_mut(&place)) else {
            return;
        };
        message.is_being_merged = false;
        if let Some(before) = message.location.replace(location) {
            disk.left(before);
        }
        disk.took(location);
    }

    fn on_removed(&mut self, now: Duration, segment: Serial, failed: Option<Failed>) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        match failed {
            None => {
                disk.removing.remove(&segment);
                disk.segments.remove(&segment);
            }
            // It is tried again.
            Some(failed) => {
                self.counts.write_errors += 1;
                disk.removing.remove(&segment);
                disk.fails(now, failed);
            }
        }
    }

    /// Notes what is not to be delivered, because messages of this segment stand for it.
    fn on_replaced(&mut self, segment: Serial, replaced: &[Replaced]) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        disk.segments.entry(segment).or_default().replaces = !replaced.is_empty();
        for Replaced {
            boot_epoch,
            sequences,
        } in replaced
        {
            let ranges = sequences.iter();
            disk.replaced
                .extend(ranges.map(|&(first, end)| (*boot_epoch, first, end, segment)));
        }
    }

    fn on_recovered(
        &mut self,
        now: Duration,
        segment: Serial,
        tables: Vec<Table>,
        messages: Vec<(Message, Location)>,
        damages: Vec<Trouble>,
        changes: &mut Vec<Change>,
    ) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        disk.is_recovering = false;
        let of = disk.unread.iter().position(|own| own.serial == segment);
        let of = of.and_then(|at| disk.unread.remove(at));
        let account = disk.segments.entry(segment).or_default();
        account.boot_epoch = of.map_or(0, |own| own.boot_epoch);
        account.bytes = of.map_or(0, |own| own.bytes);
        self.counts.damaged += damages.len() as u64;
        for trouble in damages {
            disk.tell(trouble);
        }
        let DiskAccount {
            replaced, segments, ..
        } = disk;
        let mut messages = messages;
        messages.retain(|(message, _)| {
            let key = message.key;
            let covers = |&&(epoch, first, end, _): &&(u64, u64, u64, Serial)| {
                epoch == key.boot_epoch && (first..end).contains(&key.sequence)
            };
            let mut is_whole = key.boot_epoch != self.boot_epoch;
            for &(_, _, _, by) in replaced.iter().filter(covers) {
                is_whole = false;
                if by != segment
                    && let Some(by) = segments.get_mut(&by)
                {
                    by.waits_for.insert(segment);
                }
            }
            is_whole
        });
        if disk.doomed.remove(&segment) {
            self.counts.dropped += messages.len() as u64;
            return;
        }
        for table in tables {
            let key = (table.boot_epoch, table.number);
            let number = disk.recovered_tables.len() as u64;
            disk.recovered_tables.entry(key).or_insert_with(|| TableOf {
                number,
                table: Arc::new(table),
            });
        }
        disk.orphans.extend(messages);
        let all_read = disk.unread.is_empty();
        let mut found = std::mem::take(&mut disk.orphans);
        // From the last to the first, so that the places ascend as the messages do.
        while let Some((message, location)) = found.pop() {
            self.recover(now, message, location, all_read, changes);
        }
        self.make_room(now, changes);
    }

    fn recover(
        &mut self,
        now: Duration,
        message: Message,
        location: Location,
        all_read: bool,
        changes: &mut Vec<Change>,
    ) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        let key = message.key;
        if self.places.contains_key(&key) {
            return;
        }
        let table = match message.table {
            None => None,
            Some(number) => match disk.recovered_tables.get(&(key.boot_epoch, number)) {
                Some(table) => Some(table.clone()),
                None if all_read => {
                    self.counts.damaged += 1;
                    let file = format!("segment {:08x}", location.segment);
                    let what = format!("its path table {number} could not be read anywhere");
                    let offset = location.offset as usize;
                    disk.tell(Trouble {
                        file,
                        offset,
                        what,
                        is_lasting: true,
                    });
                    return;
                }
                None => {
                    disk.orphans.push((message, location));
                    return;
                }
            },
        };
        self.counts.recovered += 1;
        let mut stored = 0;
        for (index, name) in self.limits.aggregators.iter().enumerate() {
            let below = self.below.get(&(index, key.boot_epoch)).copied();
            if message.exempt.contains(name) || key.sequence < below.unwrap_or(0) {
                stored |= 1 << index;
            }
        }
        if self
            .limits
            .policy
            .is_met(stored, stored, self.limits.aggregators.len())
        {
            return;
        }
        disk.next_recovered -= 1;
        let place = disk.next_recovered;
        // It may have been forgotten meanwhile, as nothing referred to it.
        if let Some(table) = &table
            && !self.tables.contains_key(&table.number)
        {
            changes.push(Change::Table(table.clone()));
        }
        self.insert(
            place,
            Waiting {
                key,
                table,
                start: message.start,
                end: message.end,
                frame: None,
                frame_type: None,
                location: Some(location),
                since: now,
                settled: stored,
                stored,
                // Whom a life before sent it to is not known.
                handed: u16::MAX,
                stays: true,
                is_being_merged: false,
            },
        );
        changes.push(Change::Added(place));
    }
}

impl DiskAccount {
    /// Whether what the disk did not give is asked for again. A place that it never gives must not hold up the rest.
    fn is_tried_again(&mut self, place: u64) -> bool {
        let failures = self.read_failures.entry(place).or_default();
        *failures += 1;
        let is_tried_again = *failures < READ_ATTEMPTS;
        if !is_tried_again {
            self.read_failures.remove(&place);
        }
        is_tried_again
    }

    /// Keeps a trouble to be told of; the oldest make room.
    fn tell(&mut self, trouble: Trouble) {
        const KEPT: usize = 64;
        if self.troubles.len() == KEPT {
            self.troubles.pop_front();
        }
        self.troubles.push_back(trouble);
    }
}
