//! Pooled sessions, as far as the session's own state goes: what its settings ask for, what of its
//! state stays on the connection when it is released, and how the next session takes it over.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use super::named::Named;
use super::{APPLICATION_NAME, Carried, Mux, SOFT};
use crate::backend::ConnState;
use crate::pool::classes::{self, CLASS, PURITY, Purity, TAG, TAG_FOUND, TAG_MATCH, Tag, Wish};
use crate::pool::{Found, Kept};
use crate::query::{Change, Class, Effects, SettingValue, Settings};

/// What of a session's state is taken off its connection at the release.
const TIDIED: Effects = Effects::HOLD
    .and(Effects::ADVISORY)
    .and(Effects::LISTEN)
    .and(Effects::ROLE)
    .and(Effects::POOLED);

/// Whether and how a session uses pooled sessions.
#[derive(Debug, Default)]
pub(super) struct Pooled {
    /// `session.drcp.enabled`, and the session is one that can.
    enabled: bool,
    /// A function was to set the class or the purity: what they are, a look will tell.
    unheard: bool,
    /// Only for sessions that have asked for something.
    state: Option<Box<State>>,
}

#[derive(Debug)]
struct State {
    /// Counts when the client does not say.
    default: Purity,
    wish: Option<Wish>,
    held: Option<Held>,
    /// What is held must be released at the end of the transaction.
    over: bool,
    /// Something may have been left behind what ended it.
    mixed: bool,
}

/// As what the session on the connection will be known.
#[derive(Debug)]
struct Held {
    class: Option<Arc<str>>,
    tag: Tag,
}

/// What is kept with a parked connection.
struct Remains {
    settings: Settings,
    pins: Effects,
    custom: Vec<Box<str>>,
    named: Named,
    native: bool,
    own: HashSet<Box<[u8]>>,
    carried: Vec<Carried>,
    carried_effects: Option<Effects>,
}

/// What becomes of the connection of a pooled session that is over.
pub enum Left {
    /// It is parked.
    Parcel(Parcel),
    /// No reset gets it clean.
    Spoiled,
}

/// What goes with a parked connection.
pub struct Parcel {
    /// What the state is called.
    pub tag: Tag,
    /// What is there.
    pub kept: Kept,
}

impl Mux {
    /// From now on the session may ask for pooled sessions; `default` counts when it does not say
    /// which, and `preset` are settings that a RESET takes away.
    pub fn pool_sessions(&mut self, default: Purity, preset: Vec<(Box<str>, SettingValue)>) {
        self.pooled.enabled = true;
        if !preset.is_empty() {
            self.settings = Arc::new(self.start.with(preset));
        }
        if self.asks() {
            self.pooled.state().default = default;
            self.follow_wish(&[]);
        }
    }

    fn asks(&self) -> bool {
        [CLASS, PURITY, TAG].iter().any(|name| self.settings.get(name).is_some())
    }

    /// Whether the next connection must be a pooled session.
    pub fn lacks_pooled(&self) -> bool {
        let state = self.pooled.state.as_ref();
        state.is_some_and(|state| state.wish.is_some() && state.held.is_none())
    }

    /// Whether it must be, or may have to be when a look at this one is taken.
    pub fn wants_pooled(&self) -> bool {
        self.pooled.unheard || self.lacks_pooled()
    }

    /// Whether a connection from the pool would have to be a pooled session, or one was lost.
    pub fn uses_pooled(&self) -> bool {
        let state = self.pooled.state.as_ref();
        state.is_some_and(|state| state.wish.is_some() || state.held.is_some())
    }

    /// Whether the session holds a pooled session.
    pub fn is_pooled(&self) -> bool {
        self.pooled.state.as_ref().is_some_and(|state| state.held.is_some())
    }

    /// Whether it must be released now.
    pub fn releases_pooled(&self) -> bool {
        self.pooled.state.as_ref().is_some_and(|state| state.over)
    }

    /// A session that asks for a pooled one gives up the values of its sequences and the seed of
    /// random() for it.
    pub(super) fn give_up_for_wish(&mut self) {
        if self.lacks_pooled() {
            self.pins = self.pins.without(SOFT);
        }
    }

    /// What pooled session it asks for, and whether it can take over the state of none, because it
    /// has prepared statements of its own.
    pub fn wish(&self) -> Option<(Wish, bool)> {
        let wish = self.pooled.state.as_ref()?.wish.clone()?;
        let alone =
            self.native || self.named.len() > 0 || !self.carried.is_empty() || !self.pins.is_none();
        Some((wish, alone))
    }

    /// Settings were changed in this order: follows what that means for the session that is held,
    /// and for the next one.
    pub(super) fn follow_wish(&mut self, changes: &[Change]) {
        if !self.pooled.enabled || (self.pooled.state.is_none() && !self.asks()) {
            return;
        }
        let (settings, start) = (self.settings.clone(), self.start.clone());
        let state = self.pooled.state();
        state.wish = wish_of(&settings, state.default);
        let Some(held) = &mut state.held else { return self.give_up_for_wish() };
        let mut over = state.wish.as_ref().is_none_or(|wish| wish.class != held.class);
        let mut before = true;
        for change in changes {
            let (name, value) = match change {
                Change::Set(name, value) => (&**name, Some(value)),
                Change::Reset(name) => (&**name, start.get(name)),
                Change::ResetAll => {
                    // Whatever it said is not there any more.
                    if before {
                        held.tag = Tag::default();
                    }
                    continue;
                }
                Change::Local => continue,
            };
            match name {
                PURITY if purity_of(value, state.default) == Purity::Any => before = false,
                CLASS if class_of(value) != held.class => before = false,
                TAG if before => held.tag = tag_of(value),
                _ => {}
            }
        }
        over |= !before;
        state.over = over;
    }

    /// A look has shown the settings, which were these before: a tag that a function has set is
    /// the name of the state, too.
    pub(super) fn follow_tag(&mut self, was: &Settings) {
        let tag = tag_of(self.settings.get(TAG));
        if let Some(held) = self.pooled.state.as_mut().and_then(|state| state.held.as_mut())
            && tag != tag_of(was.get(TAG))
        {
            held.tag = tag;
        }
    }

    /// Something is asked for. What comes behind the end of a pooled session, in the same
    /// transaction or before that is known, belongs neither to its class nor to the next: nobody
    /// may find it.
    pub(super) fn note_behind(&mut self, class: &Class) {
        let unheard = self.pooled.unheard;
        let asks = self.pooled.enabled
            && class.effects.has(Effects::SETTING)
            && class.custom_settings.iter().any(|name| [CLASS, PURITY].contains(&&**name));
        self.pooled.unheard |= asks;
        let Some(state) = self.pooled.state.as_mut().filter(|state| state.held.is_some()) else {
            return;
        };
        let in_flight = self.pending.iter().map(|(_, change)| change).chain(&self.journal);
        let ends = state.over
            || unheard
            || class.changes.iter().chain(in_flight).any(may_end)
            || class.effects.has(Effects::DISCARD_ALL);
        let lasts = |change: &Change| match change {
            Change::Set(name, _) | Change::Reset(name) => !is_word(name),
            Change::ResetAll | Change::Local => false,
        };
        let lasts = class.changes.iter().any(lasts);
        let leaves = |effects: Effects| effects.has(Effects::HOLDING) || lasts;
        state.mixed |= ends && leaves(class.effects);
        state.mixed |= asks && leaves(class.effects.without(Effects::SETTING));
    }

    /// Nothing is in flight: what was to end the pooled session has, or has not.
    pub(super) fn settle_behind(&mut self) {
        if let Some(state) = &mut self.pooled.state {
            state.mixed &= state.over || self.pooled.unheard;
        }
    }

    /// A look has shown what functions have set.
    pub(super) fn heard(&mut self) {
        self.pooled.unheard = false;
        self.settle_behind();
    }

    /// The connection has what others of the class have set unseen: that is part of what was found,
    /// and goes with the session.
    pub fn inherits_stains(&mut self, conn: &mut ConnState) {
        self.stains |= std::mem::take(&mut conn.stained);
    }

    /// The session has got this pooled session: its own settings are laid over those that are
    /// there.
    pub fn take_over_pooled(&mut self, found: Option<Found>) {
        let Some(state) = &mut self.pooled.state else { return };
        let Some(wish) = &state.wish else { return };
        let (mut tag, mut fits, mut called) = (wish.tag.clone(), "none", Tag::default());
        let mut base = Settings::default();
        self.pins.add(Effects::POOLED);
        if let Some(Found { kept, tag: was, exact }) = found
            && let Ok(there) = kept.downcast::<Remains>()
        {
            let Remains { settings, pins, custom, named, native, own, carried, carried_effects } =
                *there;
            fits = if exact { "exact" } else { "partial" };
            if tag.is_empty() {
                tag = was.clone();
            }
            called = was;
            base = settings;
            self.pins.add(pins);
            self.probe_due |= pins.has(Effects::UNCLEAR.and(Effects::SETTING));
            for name in custom {
                if !self.custom.contains(&name) {
                    self.custom.push(name);
                }
            }
            (self.named, self.native, self.own) = (named, native, own);
            (self.carried, self.carried_effects) = (carried, carried_effects);
        }
        let own = self.settings.names().filter_map(|n| Some((n.into(), self.settings.get(n)?)));
        let own = own.map(|(name, value): (Box<str>, _)| (name, value.clone()));
        let config = |name: &str, value: String| (name.into(), SettingValue::Config(value.into()));
        let told = [config(TAG_MATCH, fits.into()), config(TAG_FOUND, called.to_string())];
        let mut settings = base.with(own.chain(told));
        if settings.get(TAG).is_none() && !tag.is_empty() {
            settings = settings.with([config(TAG, tag.to_string())]);
        }
        state.held = Some(Held { class: wish.class.clone(), tag });
        (state.over, state.mixed) = (false, false);
        self.settings = Arc::new(settings);
    }

    /// The pooled session is over: its state stays behind, and the session has none any more but
    /// what it asks for. `None` = it held none.
    pub fn leave_pooled(&mut self) -> Option<Left> {
        self.settle();
        let state = self.pooled.state.as_mut()?;
        let (held, mixed) = (state.held.take()?, state.mixed);
        let spoiled = self.spoils() || mixed;
        let kept = Remains {
            settings: to_keep(&self.settings),
            pins: self.pins.without(TIDIED),
            custom: self.custom.iter().filter(|name| !is_word(name)).cloned().collect(),
            named: self.named.hand_over(),
            native: self.native,
            own: std::mem::take(&mut self.own),
            carried: std::mem::take(&mut self.carried),
            carried_effects: self.carried_effects,
        };
        self.start_anew();
        Some(match spoiled {
            true => Left::Spoiled,
            false => Left::Parcel(Parcel { tag: held.tag, kept: Box::new(kept) }),
        })
    }

    /// Nothing of the session's state is left, but what it asks for.
    fn start_anew(&mut self) {
        let asked = [CLASS, PURITY, TAG]
            .into_iter()
            .filter_map(|name| Some((Box::from(name), self.settings.get(name)?.clone())));
        self.settings = Arc::new(self.start.with(asked));
        self.forget_statements();
        self.custom.retain(|name| is_word(name));
        self.unnamed = None;
        self.journal.clear();
        self.pending.clear();
        (self.pins, self.batch) = (Effects::NONE, Effects::NONE);
        (self.failed, self.rolled_back, self.pooled.unheard) = (false, false, false);
        (self.probe_due, self.looked_before, self.settings_moved) = (false, false, false);
        if let Some(state) = &mut self.pooled.state {
            (state.over, state.mixed) = (false, false);
        }
        self.follow_wish(&[]);
    }
}

impl Pooled {
    fn state(&mut self) -> &mut State {
        self.state.get_or_insert_with(|| {
            Box::new(State {
                default: Purity::Any,
                wish: None,
                held: None,
                over: false,
                mixed: false,
            })
        })
    }
}

fn wish_of(settings: &Settings, default: Purity) -> Option<Wish> {
    let purity = purity_of(settings.get(PURITY), default);
    let (class, tag) = (class_of(settings.get(CLASS)), tag_of(settings.get(TAG)));
    (purity != Purity::Any).then_some(Wish { class, purity, tag })
}

/// A value that means nothing is as good as `any`: PostgreSQL takes every value, and a session must
/// not be lost by one.
fn purity_of(value: Option<&SettingValue>, default: Purity) -> Purity {
    match value.map(plain) {
        None => default,
        Some(text) => match text.as_deref() {
            Some("") => default,
            Some(text) => Purity::parse(text).unwrap_or(Purity::Any),
            None => Purity::Any,
        },
    }
}

fn class_of(value: Option<&SettingValue>) -> Option<Arc<str>> {
    classes::class(&plain(value?)?).ok().flatten()
}

fn tag_of(value: Option<&SettingValue>) -> Tag {
    let text = value.and_then(plain);
    text.and_then(|text| Tag::parse(&text).ok()).unwrap_or_default()
}

/// The text of a value; `None` = it is written in a way that is not read here.
fn plain(value: &SettingValue) -> Option<Cow<'_, str>> {
    let sql = match value {
        SettingValue::Config(text) => return Some(Cow::Borrowed(text)),
        SettingValue::Sql(sql) => sql.trim(),
    };
    // Without a backslash it is a plain constant.
    let escaped = sql.strip_prefix(['e', 'E']).filter(|text| text.starts_with('\''));
    let sql = escaped.filter(|text| !text.contains('\\')).unwrap_or(sql);
    let between = |quote: char| sql.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(text) = between('\'') {
        let single = text.replace("''", "");
        return (!single.contains('\'')).then(|| text.replace("''", "'").into());
    }
    if let Some(text) = between('"') {
        return (!text.contains('"')).then_some(Cow::Borrowed(text));
    }
    let is_word = sql.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_word.then(|| sql.to_ascii_lowercase().into())
}

/// Whether a setting says something about pooled sessions.
pub(super) fn is_word(name: &str) -> bool {
    [CLASS, PURITY, TAG, TAG_MATCH, TAG_FOUND].contains(&name)
}

/// Whether a change may end the pooled session that is held.
fn may_end(change: &Change) -> bool {
    match change {
        Change::Set(name, _) | Change::Reset(name) => [CLASS, PURITY].contains(&&**name),
        Change::ResetAll => true,
        Change::Local => false,
    }
}

/// What the next session finds; the name of the application is each client's own.
fn to_keep(settings: &Settings) -> Settings {
    let others = settings.names().filter(|name| !is_word(name) && *name != APPLICATION_NAME);
    let pairs = others.filter_map(|name| Some((name.into(), settings.get(name)?.clone())));
    Settings::from_pairs(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> SettingValue {
        SettingValue::Sql(text.into())
    }

    #[test]
    fn values_are_read_as_postgresql_does() {
        for (text, value) in [
            ("'self'", Some("self")),
            (" 'it''s' ", Some("it's")),
            ("\"Web App\"", Some("Web App")),
            ("SELF", Some("self")),
            ("'a=1,b=2'", Some("a=1,b=2")),
            ("'a' 'b'", None),
            ("E'a=1'", Some("a=1")),
            ("E'a\\n'", None),
            ("a, b", None),
            ("''", Some("")),
        ] {
            assert_eq!(plain(&sql(text)).as_deref(), value, "{text}");
        }
        assert_eq!(purity_of(Some(&sql("'nonsense'")), Purity::New), Purity::Any);
        assert_eq!(purity_of(None, Purity::New), Purity::New);
        assert_eq!(purity_of(Some(&sql("''")), Purity::Own), Purity::Own);
    }
}
