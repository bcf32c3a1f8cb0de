//! Whole recordings: a directory of real ones, if there is one, and files that are made here.

use std::io::Write as _;

use super::*;

fn files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            files(&path, into);
        } else if [".pcap", ".pcapng", ".gz", ".bz2", ".mrt"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            into.push(path);
        }
    }
}

#[test]
fn real_recordings_replay_without_a_lost_stream() {
    let Some(directory) = std::env::var_os("LEEWARD_BGP_RECORDINGS") else {
        leeward_testing::skipped(
            "real_recordings_replay_without_a_lost_stream",
            "LEEWARD_BGP_RECORDINGS names no directory",
        );
        return;
    };
    let mut recordings = Vec::new();
    files(Path::new(&directory), &mut recordings);
    recordings.sort();
    assert!(
        !recordings.is_empty(),
        "{} holds no recordings",
        directory.display()
    );
    for recording in recordings {
        let replayed = replay(std::slice::from_ref(&recording), Watchlist::default()).unwrap();
        let account = &replayed.files[0].1;
        let all: u64 = account.refused.values().sum();
        // A draft's version of BMP is refused as such, message by message.
        let drafts = account
            .refused
            .get("BMP message: its version is not 3")
            .copied()
            .unwrap_or_default();
        let refused = all - drafts;
        let understood: u64 = account.understood.values().sum();
        eprintln!(
            "{}: {understood} understood, {refused} refused",
            recording.display()
        );
        assert!(
            account.lost.is_empty(),
            "{}\n{account}",
            recording.display()
        );
        assert!(
            understood + drafts > 0,
            "{}\n{account}",
            recording.display()
        );
        assert!(
            refused * 20 <= understood,
            "{}\n{account}",
            recording.display()
        );
    }
}

/// A record of an UPDATE of 10.9.9.9 that announces 198.51.100.0/24, or withdraws it.
fn record(second: u32, withdrawn: bool) -> Vec<u8> {
    let update: &[u8] = match withdrawn {
        true => &[0, 4, 24, 198, 51, 100, 0, 0],
        false => &[
            0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfb, 0xf5, 0x40, 3, 4, 192, 0, 2,
            1, 24, 198, 51, 100,
        ],
    };
    let mut body = [64_501u32.to_be_bytes(), 64_500u32.to_be_bytes()].concat();
    body.extend([0, 0, 0, 1, 10, 9, 9, 9, 10, 0, 0, 1]);
    body.extend([0xff; 16]);
    body.extend(u16::try_from(19 + update.len()).unwrap().to_be_bytes());
    body.push(2);
    body.extend(update);
    let mut record = second.to_be_bytes().to_vec();
    record.extend([0, 16, 0, 4]);
    record.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn a_packed_recording_is_replayed_and_a_watched_prefix_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = [
        record(1_000, false),
        record(1_100, false),
        record(1_200, true),
    ]
    .concat();
    let packed = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&bytes).unwrap();
    let files = [
        (packed("plain.mrt", &bytes), "MRT"),
        (packed("packed.gz", &gzip.finish().unwrap()), "MRT, gzip"),
        (packed("packed.bz2", &bzip2.finish().unwrap()), "MRT, bzip2"),
    ];
    for (file, format) in files {
        let text = text(&["198.51.100.0/24".parse().unwrap()], &[file]).unwrap();
        assert!(text.contains(&format!("format      {format}\n")), "{text}");
        assert!(text.contains("understood  3 UPDATE\n"), "{text}");
        assert!(text.contains("2 announced, 1 withdrawn"), "{text}");
        assert!(text.contains("Withdrawn { path: \"64501\""), "{text}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = text(&[], &[PathBuf::from("/nowhere/x.mrt")]).unwrap_err();
    assert!(
        format!("{error:#}").starts_with("/nowhere/x.mrt cannot be replayed: "),
        "{error:#}"
    );
}
