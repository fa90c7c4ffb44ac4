//! Rows as a stream of Arrow's IPC format
//! (<https://arrow.apache.org/docs/format/IPC.html#ipc-streaming-format>): the schema, record
//! batches, an end.
//!
//! | PostgreSQL | Arrow |
//! |---|---|
//! | bool; float4, float8 | Boolean; Float32, Float64 |
//! | int2, int4, int8, oid | Int16, Int32, Int64, UInt32 |
//! | date, time, timestamp, timestamptz | Date32, Time64, Timestamp, Timestamp in UTC, all in µs |
//! | uuid, bytea | FixedSizeBinary(16) as the extension type `arrow.uuid`, Binary |
//! | json, jsonb | Utf8 as the extension type `arrow.json` |
//! | numeric and everything else | Utf8 with PostgreSQL's text, so that no digit is lost |
//!
//! `infinity` of dates and times is the largest number, `-infinity` the smallest, as in
//! PostgreSQL's own binary form. The type's name in PostgreSQL is in the field's metadata as
//! `postgresql.type`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, PrimitiveBuilder,
    StringBuilder,
};
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use postgres_types::Type;

use super::times;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::backend::DataRow;
use crate::proto::json::write_bytes;
use crate::session::Column;

/// Bytes of rows in a batch, about, and rows at most: what is kept back of a stream.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_ROWS: usize = 8192;

/// The head of a message of which nothing follows: readers fail here, where they would take the
/// end of the input for the end of the stream.
pub const CUT_OFF: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0x40, 0, 0, 0];

/// Writes the rows of a result.
pub struct Rows {
    schema: Arc<Schema>,
    builders: Vec<Builder>,
    writer: StreamWriter<Vec<u8>>,
    scratch: Vec<u8>,
    rows: usize,
    bytes: usize,
}

/// The values of a column of a batch.
enum Builder {
    Bool(BooleanBuilder),
    Int2(PrimitiveBuilder<Int16Type>),
    Int4(PrimitiveBuilder<Int32Type>),
    Int8(PrimitiveBuilder<Int64Type>),
    Oid(PrimitiveBuilder<UInt32Type>),
    Float4(PrimitiveBuilder<Float32Type>),
    Float8(PrimitiveBuilder<Float64Type>),
    Date(PrimitiveBuilder<Date32Type>),
    Time(PrimitiveBuilder<Time64MicrosecondType>),
    Timestamp(PrimitiveBuilder<TimestampMicrosecondType>),
    Uuid(FixedSizeBinaryBuilder),
    Bytea(BinaryBuilder),
    Text(StringBuilder),
}

impl Rows {
    /// Writes the schema.
    pub fn begin(columns: &[Column], out: &mut Vec<u8>) -> Result<Self> {
        let builders: Vec<Builder> = columns.iter().map(|c| Builder::of(c.type_oid)).collect();
        let fields: Vec<Field> =
            columns.iter().zip(&builders).map(|(column, builder)| field(column, builder)).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(Error::internal)?;
        out.append(writer.get_mut());
        Ok(Self { schema, builders, writer, scratch: Vec::new(), rows: 0, bytes: 0 })
    }

    /// Adds a row to the batch; writes the batch when it is full.
    pub fn row(&mut self, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let values = DataRow::parse(row).map_err(Error::backend_lost)?;
        for (at, (value, builder)) in values.zip(&mut self.builders).enumerate() {
            let value = value.map_err(Error::backend_lost)?;
            if builder.add(value, &mut self.scratch).is_none() {
                let name = self.schema.fields().get(at).map_or("", |field| field.name().as_str());
                let text = format!("a value of the column \"{name}\" has no form in Arrow");
                return Err(Error::new(ErrorKind::ValidationError, text)
                    .with_hint("cast the column to text, or ask for JSON"));
            }
        }
        self.rows += 1;
        self.bytes += row.len();
        match self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            true => self.write_batch(out),
            false => Ok(()),
        }
    }

    fn write_batch(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let arrays: Vec<ArrayRef> = self.builders.iter_mut().map(Builder::finish).collect();
        // A result can have rows without columns.
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options);
        let batch = batch.map_err(Error::internal)?;
        self.writer.write(&batch).map_err(Error::internal)?;
        out.append(self.writer.get_mut());
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// Writes the rows that are left, and the end of the stream.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.rows > 0 {
            self.write_batch(out)?;
        }
        self.writer.finish().map_err(Error::internal)?;
        out.append(self.writer.get_mut());
        Ok(())
    }
}

fn field(column: &Column, builder: &Builder) -> Field {
    let mut metadata =
        HashMap::from([("postgresql.type".to_owned(), column.info.name.to_string())]);
    let extension = match column.type_oid {
        oid if oid == Type::UUID.oid() => Some("arrow.uuid"),
        oid if oid == Type::JSON.oid() || oid == Type::JSONB.oid() => Some("arrow.json"),
        _ => None,
    };
    if let Some(extension) = extension {
        metadata.insert("ARROW:extension:name".to_owned(), extension.to_owned());
        metadata.insert("ARROW:extension:metadata".to_owned(), String::new());
    }
    let data_type = match column.type_oid == Type::TIMESTAMPTZ.oid() {
        true => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        false => builder.data_type(),
    };
    Field::new(&column.name, data_type, column.nullable).with_metadata(metadata)
}

impl Builder {
    fn of(type_oid: u32) -> Self {
        match Type::from_oid(type_oid) {
            Some(Type::BOOL) => Self::Bool(BooleanBuilder::new()),
            Some(Type::INT2) => Self::Int2(PrimitiveBuilder::new()),
            Some(Type::INT4) => Self::Int4(PrimitiveBuilder::new()),
            Some(Type::INT8) => Self::Int8(PrimitiveBuilder::new()),
            Some(Type::OID) => Self::Oid(PrimitiveBuilder::new()),
            Some(Type::FLOAT4) => Self::Float4(PrimitiveBuilder::new()),
            Some(Type::FLOAT8) => Self::Float8(PrimitiveBuilder::new()),
            Some(Type::DATE) => Self::Date(PrimitiveBuilder::new()),
            Some(Type::TIME) => Self::Time(PrimitiveBuilder::new()),
            Some(Type::TIMESTAMP) => Self::Timestamp(PrimitiveBuilder::new()),
            Some(Type::TIMESTAMPTZ) => {
                Self::Timestamp(PrimitiveBuilder::new().with_timezone("UTC"))
            }
            Some(Type::UUID) => Self::Uuid(FixedSizeBinaryBuilder::new(16)),
            Some(Type::BYTEA) => Self::Bytea(BinaryBuilder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Bool(_) => DataType::Boolean,
            Self::Int2(_) => Int16Type::DATA_TYPE,
            Self::Int4(_) => Int32Type::DATA_TYPE,
            Self::Int8(_) => Int64Type::DATA_TYPE,
            Self::Oid(_) => UInt32Type::DATA_TYPE,
            Self::Float4(_) => Float32Type::DATA_TYPE,
            Self::Float8(_) => Float64Type::DATA_TYPE,
            Self::Date(_) => Date32Type::DATA_TYPE,
            Self::Time(_) => Time64MicrosecondType::DATA_TYPE,
            Self::Timestamp(_) => TimestampMicrosecondType::DATA_TYPE,
            Self::Uuid(_) => DataType::FixedSizeBinary(16),
            Self::Bytea(_) => DataType::Binary,
            Self::Text(_) => DataType::Utf8,
        }
    }

    /// Adds a value; `None` = it is not the text of its type.
    fn add(&mut self, value: Option<&[u8]>, scratch: &mut Vec<u8>) -> Option<()> {
        fn put<T: ArrowPrimitiveType>(
            builder: &mut PrimitiveBuilder<T>,
            value: Option<&[u8]>,
            read: impl FnOnce(&[u8]) -> Option<T::Native>,
        ) -> Option<()> {
            match value {
                Some(text) => builder.append_value(read(text)?),
                None => builder.append_null(),
            }
            Some(())
        }
        match self {
            Self::Bool(builder) => match value {
                Some(b"t") => builder.append_value(true),
                Some(b"f") => builder.append_value(false),
                Some(_) => return None,
                None => builder.append_null(),
            },
            Self::Int2(builder) => put(builder, value, number)?,
            Self::Int4(builder) => put(builder, value, number)?,
            Self::Int8(builder) => put(builder, value, number)?,
            Self::Oid(builder) => put(builder, value, number)?,
            Self::Float4(builder) => put(builder, value, number)?,
            Self::Float8(builder) => put(builder, value, number)?,
            Self::Date(builder) => put(builder, value, times::date)?,
            Self::Time(builder) => put(builder, value, times::time)?,
            Self::Timestamp(builder) => put(builder, value, times::timestamp)?,
            Self::Uuid(builder) => match value {
                Some(text) => {
                    let bytes = uuid::Uuid::try_parse_ascii(text).ok()?;
                    builder.append_value(bytes.as_bytes()).ok()?;
                }
                None => builder.append_null(),
            },
            Self::Bytea(builder) => match value {
                Some(text) => {
                    scratch.clear();
                    write_bytes(scratch, text)?;
                    builder.append_value(&scratch);
                }
                None => builder.append_null(),
            },
            Self::Text(builder) => match value {
                Some(text) => builder.append_value(String::from_utf8_lossy(text)),
                None => builder.append_null(),
            },
        }
        Some(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(builder) => ArrayBuilder::finish(builder),
            Self::Int2(builder) => ArrayBuilder::finish(builder),
            Self::Int4(builder) => ArrayBuilder::finish(builder),
            Self::Int8(builder) => ArrayBuilder::finish(builder),
            Self::Oid(builder) => ArrayBuilder::finish(builder),
            Self::Float4(builder) => ArrayBuilder::finish(builder),
            Self::Float8(builder) => ArrayBuilder::finish(builder),
            Self::Date(builder) => ArrayBuilder::finish(builder),
            Self::Time(builder) => ArrayBuilder::finish(builder),
            Self::Timestamp(builder) => ArrayBuilder::finish(builder),
            Self::Uuid(builder) => ArrayBuilder::finish(builder),
            Self::Bytea(builder) => ArrayBuilder::finish(builder),
            Self::Text(builder) => ArrayBuilder::finish(builder),
        }
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
