//! The templates of requests that come again and again. They are forgotten when what they were made
//! of is: the definitions, or the configuration.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use parking_lot::RwLock;

use super::media::Media;
use crate::config::Config;
use crate::query::postgrest::{Shape, Template};
use crate::query::schema::Schema;
use crate::telemetry::Metrics;

/// Templates that are kept.
const MOST: usize = 1024;

/// Bytes of them, about.
const MOST_BYTES: usize = 16 << 20;

/// Shapes that came once are remembered by their hashes, in so many places.
const SEEN: usize = 1024;

/// How requests of a shape are answered, and in which form.
#[derive(Debug)]
pub struct Known {
    pub template: Template,
    pub media: Media,
}

/// The templates.
pub struct Shapes {
    kept: RwLock<Kept>,
    seen: [AtomicU64; SEEN],
    hasher: RandomState,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Kept {
    made_of: Option<(Arc<Config>, Arc<Schema>)>,
    by_text: HashMap<Box<[u8]>, Arc<Known>, RandomState>,
    bytes: usize,
}

impl Kept {
    fn is_made_of(&self, config: &Arc<Config>, schema: &Arc<Schema>) -> bool {
        let is_it = |(c, s): &(_, _)| Arc::ptr_eq(c, config) && Arc::ptr_eq(s, schema);
        self.made_of.as_ref().is_some_and(is_it)
    }
}

impl Shapes {
    /// Without any.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let (kept, hasher) = (RwLock::default(), RandomState::default());
        Self { kept, seen: [const { AtomicU64::new(0) }; SEEN], hasher, metrics }
    }

    /// The template of a shape.
    pub fn find(
        &self,
        shape: &Shape<'_>,
        config: &Arc<Config>,
        schema: &Arc<Schema>,
    ) -> Option<Arc<Known>> {
        let kept = self.kept.read();
        let found = kept.by_text.get(shape.text()).filter(|_| kept.is_made_of(config, schema));
        match found {
            Some(_) => self.metrics.http.template_hits.inc(),
            None => self.metrics.http.template_misses.inc(),
        }
        found.cloned()
    }

    /// Whether it is worth it to make a template: the shape has come before.
    pub fn comes_again(&self, shape: &Shape<'_>) -> bool {
        let hash = self.hasher.hash_one(shape.text());
        let place = &self.seen[hash as usize % SEEN];
        place.swap(hash, Ordering::Relaxed) == hash
    }

    /// Keeps one. When there is no room for it, all others make room: those that are used are soon
    /// there again.
    pub fn keep(
        &self,
        shape: &Shape<'_>,
        known: Known,
        (config, schema): (&Arc<Config>, &Arc<Schema>),
    ) {
        let size = shape.text().len() + known.template.size();
        let mut kept = self.kept.write();
        let is_full = kept.by_text.len() >= MOST || kept.bytes + size > MOST_BYTES;
        if is_full || !kept.is_made_of(config, schema) {
            *kept = Kept::default();
            kept.made_of = Some((config.clone(), schema.clone()));
        }
        if size <= MOST_BYTES && kept.by_text.insert(shape.text().into(), known.into()).is_none() {
            kept.bytes += size;
        }
        let count = i64::try_from(kept.by_text.len()).unwrap_or(i64::MAX);
        self.metrics.http.templates.set(count);
    }
}
