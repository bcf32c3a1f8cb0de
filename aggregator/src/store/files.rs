//! Files of records never change once they are written. So their checksums are noted soon after, and a byte that changes
//! later is found, wherever in the file it is: RocksDB itself checks the blocks that it reads, and not all of them.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use super::{Aside, Health, Read, StoreError, Writes, checksums, record::v1::Checksum};

/// Notes the checksums of files that are new, and forgets those of files that are gone.
///
/// # Errors
///
/// Returns [`StoreError`] when the store cannot be asked or written.
pub fn note(reader: &dyn Read, aside: &dyn Aside, dir: &Path) -> Result<Health, StoreError> {
    let health = aside.health()?;
    let files: BTreeSet<&String> = health.files.iter().collect();
    let known = checksums(reader)?;
    let mut writes = Writes::default();
    for file in files.iter().filter(|file| !known.contains_key(**file)) {
        // One that a compaction has just removed is no loss.
        if let Ok(checksum) = checksum(&dir.join(file)) {
            writes.checksum(file, checksum);
        }
    }
    for gone in known.keys().filter(|file| !files.contains(file)) {
        writes.forget_checksum(gone);
    }
    if !writes.is_empty() {
        aside.write(&writes)?;
    }
    Ok(health)
}

/// The checksum of a file as it is.
///
/// # Errors
///
/// Returns why it cannot be read.
pub fn checksum(file: &Path) -> io::Result<Checksum> {
    let mut file = File::open(file)?;
    let mut sum = Checksum {
        bytes: 0,
        crc32c: 0,
    };
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(sum);
        }
        sum.bytes += read as u64;
        sum.crc32c = crc32c::crc32c_append(sum.crc32c, &buffer[..read]);
    }
}
