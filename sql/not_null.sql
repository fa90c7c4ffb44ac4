-- The NOT NULL columns of tables; $1 is replaced by a list of table numbers.
SELECT attrelid, attnum
  FROM pg_catalog.pg_attribute
 WHERE attrelid IN ($1) AND attnum > 0 AND attnotnull AND NOT attisdropped
