//! What is watched, learned, and watched otherwise than before.

use super::*;
use crate::bgp::watch;

fn seeking(addresses: &[(&str, &str)]) -> Watchlist {
    let address = |(address, region): &(&str, &str)| {
        (address.parse::<IpAddr>().unwrap(), region.parse().unwrap())
    };
    let told = watch::Told {
        addresses: addresses.iter().map(address).collect(),
        ..watch::Told::default()
    };
    Watchlist::new(&[], &told)
}

#[test]
fn what_holds_an_agents_address_is_followed_from_its_first_announcement() {
    let mut observer = Observer::new(seeking(&[("203.0.113.7", "fra")]));
    let one = feed(1, View::PostPolicy);
    observer.on(at(0), &one, &Event::Up { system: 64_501 });
    for prefix in [
        "203.0.0.0/16",
        "203.0.113.0/24",
        "198.51.100.0/24",
        "0.0.0.0/0",
    ] {
        observer.on(at(1), &one, &announce(prefix, &[64_501, 64_500]));
    }
    observer.on(at(2), &one, &end_of_table(Family::V4));
    assert!(changes(&mut observer).is_empty(), "a table is no news");
    let seen = |observer: &mut Observer, secs| -> Vec<_> {
        let windows = observer.close_window(at(secs), at(secs - 10)).into_iter();
        windows
            .map(|own| {
                (
                    own.prefix.to_string(),
                    own.region.to_string(),
                    own.sight.visible,
                )
            })
            .collect()
    };
    let (around, own) = ("203.0.0.0/16".to_owned(), "203.0.113.0/24".to_owned());
    let fra = || "fra".to_owned();
    assert_eq!(
        seen(&mut observer, 20),
        [(around.clone(), fra(), 1), (own.clone(), fra(), 1)]
    );
    observer.on(at(21), &one, &withdraw("203.0.113.0/24"));
    let path = "64501 64500".to_owned();
    let malformed = false;
    let withdrawn = Change::Withdrawn { path, malformed };
    assert_eq!(changes(&mut observer), [withdrawn]);
    // A part that comes up is a stranger's until it is known better, and what packets follow from now on.
    observer.on(at(22), &one, &announce("203.0.113.0/25", &[64_501, 64_666]));
    assert!(matches!(
        changes(&mut observer)[..],
        [Change::MoreSpecific(_), ..]
    ));
    assert_eq!(
        seen(&mut observer, 30),
        [
            (around, fra(), 1),
            (own, fra(), 0),
            ("203.0.113.0/25".to_owned(), fra(), 1)
        ]
    );
}

#[test]
fn another_watch_list_keeps_what_is_known_and_takes_nothing_for_made_up() {
    let mut observer = observer();
    let one = feed(1, View::PostPolicy);
    loaded(&mut observer, &one);
    let bytes = observer.bytes;
    assert!(bytes > 0);
    let list = |prefixes: &[&str]| {
        let mut list = Watchlist::default();
        for prefix in prefixes {
            let region = "dub".parse().unwrap();
            list.add(Watched::new(
                prefix.parse().unwrap(),
                region,
                BTreeSet::new(),
            ))
            .unwrap();
        }
        list
    };
    // Fewer, in another order: nothing to ask for.
    assert!(!observer.follow(list(&[WATCHED[2], WATCHED[0]])));
    assert_eq!(observer.bytes, bytes);
    assert_eq!(observer.close_window(at(50), at(40))[1].sight.visible, 1);
    // More: these were announced before anybody looked.
    let more = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"];
    let all: Vec<_> = [WATCHED[0]].into_iter().chain(more).collect();
    assert!(observer.follow(list(&all)));
    for prefix in more {
        observer.on(at(51), &one, &withdraw(prefix));
    }
    assert!(changes(&mut observer).is_empty());
    assert_eq!(
        observer.feeds()[0].standing,
        leeward_common::bgp::Standing::Believed
    );
    // What is no longer followed takes no room.
    assert!(!observer.follow(list(&[])));
    assert_eq!((observer.bytes, observer.feeds[&one].bytes), (0, 0));
}
