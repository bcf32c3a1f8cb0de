//! The routes to one prefix, by the number of the feed that shows them.
//!
//! Most prefixes are shown by a feed or two, and ten thousand of them may be watched: a sorted list takes a tenth of
//! the memory of a tree with a single entry.

use super::prefix::Route;

/// The routes of all feeds to one prefix.
#[derive(Clone, Debug, Default)]
pub struct Routes(Vec<(u32, Route)>);

impl Routes {
    /// A feed's route.
    #[must_use]
    pub fn get(&self, feed: u32) -> Option<&Route> {
        let place = self.place(feed).ok()?;
        Some(&self.0[place].1)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, feed: u32) -> Option<&mut Route> {
        let place = self.place(feed).ok()?;
        Some(&mut self.0[place].1)
    }

    /// A feed's route, one that says nothing yet if there is none.
    pub fn get_or_default(&mut self, feed: u32) -> &mut Route {
        let place = match self.place(feed) {
            Ok(place) => place,
            Err(place) => {
                if self.0.len() == self.0.capacity() {
                    // One at first, then half as many again.
                    self.0.reserve_exact((self.0.len() / 2).max(1));
                }
                self.0.insert(place, (feed, Route::default()));
                place
            }
        };
        &mut self.0[place].1
    }

    /// Feeds and their routes, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Route)> {
        self.0.iter().map(|(feed, route)| (*feed, route))
    }

    /// Keeps only the routes of these feeds.
    pub fn retain(&mut self, mut is_kept: impl FnMut(u32) -> bool) {
        self.0.retain(|(feed, _)| is_kept(*feed));
    }

    fn place(&self, feed: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&feed, |(own, _)| *own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found_by_their_feeds_however_they_came() {
        let mut routes = Routes::default();
        for feed in [7, 3, 9, 3, 1] {
            routes.get_or_default(feed).is_stuck = feed == 9;
        }
        let feeds: Vec<_> = routes
            .iter()
            .map(|(feed, route)| (feed, route.is_stuck))
            .collect();
        assert_eq!(feeds, [(1, false), (3, false), (7, false), (9, true)]);
        assert!(routes.get(2).is_none() && routes.get_mut(10).is_none());
        routes.get_mut(7).unwrap().is_stuck = true;
        assert!(routes.get(7).unwrap().is_stuck);
        routes.retain(|feed| feed < 7);
        assert!(routes.get(3).is_some() && routes.get(7).is_none());
    }

    #[test]
    fn one_route_takes_the_room_of_one() {
        let mut routes = Routes::default();
        routes.get_or_default(0);
        assert_eq!(routes.0.capacity(), 1);
    }
}
