//! A map that never holds more than it may: the entry that was used least recently makes room.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::quality::RandomState;

const NONE: usize = usize::MAX;

/// The map. Every operation takes constant time.
#[derive(Debug)]
pub struct Lru<K, V> {
    places: HashMap<K, usize, RandomState>,
    /// A doubly linked list within a vector, most recently used first.
    slots: Vec<Slot<K, V>>,
    free: Vec<usize>,
    first: usize,
    last: usize,
    most: usize,
}

#[derive(Debug)]
struct Slot<K, V> {
    entry: Option<(K, V)>,
    before: usize,
    after: usize,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    /// A map of at most `most` entries, at least one.
    pub fn new(most: usize) -> Self {
        let (places, slots, free) = (HashMap::default(), Vec::new(), Vec::new());
        Self { places, slots, free, first: NONE, last: NONE, most: most.max(1) }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Changes how many there may be.
    pub fn set_most(&mut self, most: usize) {
        self.most = most.max(1);
        while self.len() > self.most {
            self.drop_last();
        }
    }

    /// An entry, which counts as used.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        self.unlink(place);
        self.link_first(place);
        self.slots[place].entry.as_mut().map(|(_, value)| value)
    }

    /// An entry as it is, without using it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        let place = *self.places.get(key)?;
        self.slots[place].entry.as_ref().map(|(_, value)| value)
    }

    /// Puts an entry, in the place of the one with that key, or of the least recently used.
    pub fn insert(&mut self, key: K, value: V) {
        if let Some(known) = self.get(&key) {
            *known = value;
            return;
        }
        if self.len() >= self.most {
            self.drop_last();
        }
        let slot = Slot { entry: Some((key.clone(), value)), before: NONE, after: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.places.insert(key, place);
        self.link_first(place);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.places.remove(key)?;
        self.unlink(place);
        self.free.push(place);
        self.slots[place].entry.take().map(|(_, value)| value)
    }

    /// Keeps what `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        let gone: Vec<K> =
            entries.filter(|(key, value)| !keep(key, value)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        *self = Self::new(self.most);
    }

    fn drop_last(&mut self) {
        let last = self.slots.get(self.last).and_then(|slot| slot.entry.as_ref());
        if let Some(key) = last.map(|(key, _)| key.clone()) {
            self.remove(&key);
        }
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.slots[place].before, self.slots[place].after);
        match before {
            NONE => self.first = after,
            before => self.slots[before].after = after,
        }
        match after {
            NONE => self.last = before,
            after => self.slots[after].before = before,
        }
    }

    fn link_first(&mut self, place: usize) {
        let second = self.first;
        (self.slots[place].before, self.slots[place].after) = (NONE, second);
        match second {
            NONE => self.last = place,
            second => self.slots[second].before = place,
        }
        self.first = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut map = Lru::new(3);
        for n in 0..3 {
            map.insert(n, n * 10);
        }
        assert_eq!(map.get(&0), Some(&mut 0));
        map.insert(3, 30);
        assert_eq!((map.len(), map.peek(&1), map.peek(&0)), (3, None, Some(&0)));
        assert_eq!(map.remove(&0), Some(0));
        map.insert(4, 40);
        map.insert(2, 21);
        map.set_most(2);
        assert_eq!((map.peek(&2), map.peek(&4), map.peek(&3)), (Some(&21), Some(&40), None));
        map.retain(|key, _| *key == 4);
        assert_eq!((map.len(), map.peek(&4)), (1, Some(&40)));
        map.clear();
        assert!(map.is_empty());
    }

    #[test]
    fn it_agrees_with_a_list_that_is_kept_in_order() {
        let (mut map, mut list) = (Lru::new(8), Vec::<(u32, u32)>::new());
        let mut seed = 7_u32;
        for step in 0..20_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (key, what) = ((seed >> 8) % 13, seed >> 28);
            let found = list.iter().position(|(k, _)| *k == key);
            match what {
                0..=6 => {
                    map.insert(key, step);
                    if let Some(at) = found {
                        list.remove(at);
                    }
                    list.insert(0, (key, step));
                    list.truncate(8);
                }
                7..=12 => {
                    let got = map.get(&key).copied();
                    assert_eq!(got, found.map(|at| list[at].1));
                    if let Some(at) = found {
                        let entry = list.remove(at);
                        list.insert(0, entry);
                    }
                }
                _ => {
                    assert_eq!(map.remove(&key), found.map(|at| list.remove(at).1));
                }
            }
            assert_eq!(map.len(), list.len());
        }
        assert!(map.slots.len() <= 8);
    }
}
