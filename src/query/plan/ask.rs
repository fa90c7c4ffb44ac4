//! What is asked, in names that have not been looked up yet.

/// A table or function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
}

/// A step into a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A member of an object.
    Key(String),
    /// An element of an array, from the end when negative.
    Index(i32),
}

/// A column, or what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Column.
    pub name: String,
    /// Path into it.
    pub path: Vec<Step>,
    /// Whether what the path leads to is wanted as text.
    pub as_text: bool,
}

impl Field {
    /// A whole column.
    pub fn column(name: impl Into<String>) -> Self {
        Self { name: name.into(), path: Vec::new(), as_text: false }
    }
}

/// A function over many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// `avg`
    Avg,
    /// `count`
    Count,
    /// `max`
    Max,
    /// `min`
    Min,
    /// `sum`
    Sum,
}

impl Aggregate {
    /// Name of the function.
    pub fn as_str(self) -> &'static str {
        match self {
            Aggregate::Avg => "avg",
            Aggregate::Count => "count",
            Aggregate::Max => "max",
            Aggregate::Min => "min",
            Aggregate::Sum => "sum",
        }
    }
}

/// One result of a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Every column.
    All,
    /// A field.
    Field {
        /// What.
        field: Field,
        /// Its name in the result.
        alias: Option<String>,
        /// Type it is converted to.
        cast: Option<String>,
        /// Function over it.
        aggregate: Option<Aggregate>,
        /// Type the function's result is converted to.
        aggregate_cast: Option<String>,
    },
    /// The number of rows.
    CountAll {
        /// Its name in the result.
        alias: Option<String>,
        /// Type it is converted to.
        cast: Option<String>,
    },
    /// Rows of a related table.
    Embed(Embed),
    /// What differs when anything in the row differs.
    Version,
}

/// Rows of a related table within each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embed {
    /// Table, reference or column that leads there.
    pub target: String,
    /// Its name in the result.
    pub alias: Option<String>,
    /// Tells several relations apart.
    pub hint: Option<String>,
    /// Whether rows without any are left out.
    pub inner: bool,
    /// Whether its results are put beside those of the row.
    pub spread: bool,
    /// What is wanted of it.
    pub level: Level,
}

impl Embed {
    /// How other parts of the request call it.
    pub fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.target)
    }
}

/// What is wanted of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Results.
    pub items: Vec<Item>,
    /// Which rows.
    pub filter: Option<Condition>,
    /// In which order.
    pub order: Vec<Order>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// Without the first rows.
    pub offset: u64,
}

/// Direction of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest.
    #[default]
    Ascending,
    /// From the largest.
    Descending,
}

/// Where NULLs stand in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// Before everything.
    First,
    /// After everything.
    Last,
}

/// A term of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The embedded resource whose field it is; `None` = the level's own.
    pub relation: Option<String>,
    /// What is compared.
    pub field: Field,
    /// Direction.
    pub direction: Direction,
    /// `None` = last when ascending, first when descending.
    pub nulls: Option<Nulls>,
}

/// Any or all elements of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    /// At least one.
    Any,
    /// Every one.
    All,
}

/// An operator with a value on its right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `LIKE`
    Like,
    /// `ILIKE`
    ILike,
    /// `~`
    Match,
    /// `~*`
    IMatch,
    /// `@>`
    Contains,
    /// `<@`
    ContainedBy,
    /// `&&`
    Overlaps,
    /// `<<`
    StrictlyLeft,
    /// `>>`
    StrictlyRight,
    /// `&<`
    NotRightOf,
    /// `&>`
    NotLeftOf,
    /// `-|-`
    Adjacent,
}

/// What follows `IS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// `NULL`
    Null,
    /// `NOT NULL`
    NotNull,
    /// `TRUE`
    True,
    /// `FALSE`
    False,
    /// `UNKNOWN`
    Unknown,
}

/// How the text of a full text query is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextQuery {
    /// `to_tsquery`
    Query,
    /// `plainto_tsquery`
    Plain,
    /// `phraseto_tsquery`
    Phrase,
    /// `websearch_to_tsquery`
    WebSearch,
}

/// A test of a field. Values are text, as PostgreSQL reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// An operator; with a quantifier the value is an array.
    Compare {
        /// Operator.
        operator: Operator,
        /// Any or all of the value's elements.
        quantifier: Option<Quantifier>,
        /// Value.
        value: String,
    },
    /// `IS DISTINCT FROM`; `None` is NULL.
    Distinct(Option<String>),
    /// `IS`
    Is(Is),
    /// `= ANY`
    In(Vec<String>),
    /// `BETWEEN`
    Between(String, String),
    /// `@@`
    FullText {
        /// How the query is understood.
        kind: TextQuery,
        /// Text search configuration.
        config: Option<String>,
        /// Query.
        query: String,
    },
    /// `?`
    HasKey(String),
    /// `?|`
    HasAnyKey(Vec<String>),
    /// `?&`
    HasAllKeys(Vec<String>),
    /// `@?`
    PathExists(String),
    /// `@>` or `<@` on JSON of either kind.
    JsonContains {
        /// Whether the value contains the field instead.
        reversed: bool,
        /// JSON text.
        value: String,
    },
}

/// Which rows are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All of these; all rows when there is none.
    And(Vec<Condition>),
    /// Any of these; no row when there is none.
    Or(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// A test. `IS [NOT] NULL` on the name of an embedded resource asks whether it is there.
    Test(Field, Test),
    /// The row has this [`Item::Version`].
    Version(String),
}

impl Condition {
    /// Both.
    pub fn and(self, other: Condition) -> Condition {
        match self {
            Condition::And(mut all) => {
                all.push(other);
                Condition::And(all)
            }
            one => Condition::And(vec![one, other]),
        }
    }
}

/// How many rows there are altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// Not asked.
    #[default]
    None,
    /// Counted.
    Exact,
    /// What PostgreSQL's planner believes.
    Planned,
    /// Planned when it is large, counted otherwise.
    Estimated,
}

/// Rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Table.
    pub target: Target,
    /// What is wanted.
    pub level: Level,
    /// Whether the number of all rows is wanted.
    pub count: Count,
    /// Paging by the values of the last row instead of their number; then the order is completed
    /// by the primary key.
    pub keyset: Option<Keyset>,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyset {
    /// At the first row, or where its offset says, if there can be a cursor for the next page and
    /// the rows show what is needed for it; else there is none.
    Offered,
    /// At the first row.
    Start,
    /// After the row with these values.
    After(super::cursor::Position),
}

/// What becomes of a row that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The new one is left out.
    Ignore,
    /// The old one gets the new values.
    Merge,
}

/// What is done to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// New rows.
    Insert {
        /// Values.
        payload: Payload,
        /// What about rows that are there already, and the columns that tell; without columns the
        /// primary key.
        conflict: Option<(Resolution, Option<Vec<String>>)>,
        /// Only rows of the payload that fulfil this, as when one row is put in its place.
        only: Option<Condition>,
    },
    /// New values in rows.
    Update {
        /// Values: one object.
        payload: Payload,
        /// Which rows.
        filter: Option<Condition>,
    },
    /// No rows.
    Delete {
        /// Which rows.
        filter: Option<Condition>,
    },
}

/// Values for columns, as JSON text that has been checked to be one object or an array of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The text.
    pub json: String,
    /// Whether it is an array.
    pub is_array: bool,
    /// Columns that get values.
    pub columns: Vec<String>,
    /// Members that every object has; the others are missing somewhere.
    pub present: Vec<String>,
    /// Whether a missing value is the column's default instead of NULL.
    pub missing_default: bool,
    /// Whether values of bytea are in base64 instead of PostgreSQL's text form.
    pub base64: bool,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Table.
    pub target: Target,
    /// What is done.
    pub change: Change,
    /// What is wanted of the rows that were changed.
    pub returning: Returning,
}

/// What is wanted of changed rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returning {
    /// Nothing.
    Nothing,
    /// Their primary keys.
    Keys,
    /// These results.
    Rows(Level),
}

/// Arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Names and values; a name that comes several times makes an array.
    Named(Vec<(String, String)>),
    /// An object, as JSON text, and the names of its members.
    Json {
        /// The text.
        json: String,
        /// Names of the members.
        names: Vec<String>,
    },
    /// The only argument of a function, which has no name; of one of these types.
    Single {
        /// Its value.
        value: Vec<u8>,
        /// Types it may have.
        types: Vec<u32>,
    },
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Function.
    pub target: Target,
    /// Arguments.
    pub arguments: Arguments,
    /// What to give to a function with one unnamed argument when no other fits.
    pub fallback: Option<Arguments>,
    /// What is wanted of the result, when it is rows.
    pub level: Level,
    /// Whether the number of all rows is wanted.
    pub count: Count,
}
