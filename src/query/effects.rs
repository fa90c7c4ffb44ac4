//! What a statement may leave behind in its session, beyond the data it changes.

/// A set of effects. What PostgreSQL keeps for a session and cannot be given to another
/// connection holds the session on its connection; each has a name for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects(u32);

macro_rules! effects {
    ($($(#[doc = $doc:literal])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl Effects {
            $($(#[doc = $doc])* pub const $name: Effects = Effects(1 << $bit);)*

            /// Name of the first effect in the set that holds a session on its connection.
            pub fn reason(self) -> Option<&'static str> {
                [$((Self::$name, $text)),*]
                    .into_iter()
                    .find(|(effect, text)| !text.is_empty() && self.has(*effect))
                    .map(|(_, text)| text)
            }
        }
    };
}

effects! {
    /// Temporary tables and other objects.
    TEMP = 0, "temporary objects";
    /// Cursors that outlive their transaction.
    HOLD = 1, "cursor with hold";
    /// Advisory locks of the session.
    ADVISORY = 2, "advisory lock";
    /// Channels that are listened to.
    LISTEN = 3, "listen";
    /// Statements prepared with SQL, or a look at prepared statements.
    PREPARE = 4, "prepared statement";
    /// A role taken on with SET ROLE or SET SESSION AUTHORIZATION.
    ROLE = 5, "role";
    /// A library was loaded.
    LOAD = 6, "loaded library";
    /// The seed of random().
    SEED = 7, "random seed";
    /// The last values of sequences.
    SEQUENCE = 8, "sequence values";
    /// Settings that changed in a way that cannot be followed.
    SETTING = 9, "settings";
    /// State that cannot be seen from outside: connections of dblink, replication origins, …
    HIDDEN = 10, "hidden state";
    /// What a statement does was not understood; a look at the connection will tell.
    UNCLEAR = 11, "unclear";
    /// It failed to keep track of the requests; the connection is closed at the end.
    UNTRACKED = 12, "uncertain replies";
    /// It holds a pooled session until it releases it.
    POOLED = 13, "pooled session";
    /// A sequence's value is asked for: currval(), lastval().
    READS_SEQUENCE = 16, "";
    /// A table whose defaults take values from sequences; counts when rows are inserted.
    HAS_SEQUENCE = 17, "";
    /// Something is defined, altered or dropped.
    DDL = 18, "";
    /// DISCARD ALL: nothing is left behind.
    DISCARD_ALL = 19, "";
    /// BEGIN or START TRANSACTION.
    BEGIN = 20, "";
    /// DISCARD SEQUENCES.
    DISCARD_SEQUENCES = 21, "";
    /// It matters which prepared statements the connection has.
    LISTS_STATEMENTS = 22, "";
    /// Rows may be inserted.
    INSERTS = 23, "";
    /// A statement prepared with SQL is run.
    EXECUTES = 24, "";
    /// DEALLOCATE ALL.
    DEALLOCATE_ALL = 25, "";
}

impl Effects {
    /// No effect.
    pub const NONE: Effects = Effects(0);

    /// Those that a look at the connection can confirm or clear.
    pub const VISIBLE: Effects = Effects(
        Self::TEMP.0
            | Self::HOLD.0
            | Self::ADVISORY.0
            | Self::LISTEN.0
            | Self::PREPARE.0
            | Self::ROLE.0
            | Self::SETTING.0
            | Self::UNCLEAR.0,
    );

    /// Those that hold a session on its connection.
    pub const HOLDING: Effects = Effects((1 << 14) - 1);

    /// The set as a number, and back.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set of [`Effects::bits`].
    pub const fn from_bits(bits: u32) -> Effects {
        Effects(bits)
    }

    /// The union.
    #[must_use]
    pub const fn and(self, other: Effects) -> Effects {
        Effects(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Effects) -> Effects {
        Effects(self.0 & !other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn only(self, other: Effects) -> Effects {
        Effects(self.0 & other.0)
    }

    /// Whether there is one of `other`.
    pub const fn has(self, other: Effects) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is none.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Adds.
    pub fn add(&mut self, other: Effects) {
        self.0 |= other.0;
    }
}
