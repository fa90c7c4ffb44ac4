-- The NOT NULL columns of tables, by the list of their numbers that is put in.
SELECT attrelid, attnum
  FROM pg_catalog.pg_attribute
 WHERE attrelid IN ($1) AND attnum > 0 AND attnotnull AND NOT attisdropped
