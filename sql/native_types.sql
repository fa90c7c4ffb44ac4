-- How values of a type travel in the native protocol, by the list of their numbers that is put in.
-- Before PostgreSQL 14 there is no pg_range.rngmultitypid, hence the detour.
SELECT t.oid,
       t.typname,
       CASE WHEN t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A' THEN 'array'
            WHEN t.typtype = 'd' THEN 'domain'
            WHEN t.typtype = 'c' THEN 'composite'
            WHEN t.typtype = 'e' THEN 'text'
            WHEN t.typtype = 'r' THEN 'range'
            WHEN t.typtype = 'm' THEN 'multirange'
            WHEN t.typsend = 0 OR t.typreceive = 0 THEN 'text only'
            WHEN t.typname = 'citext' AND t.typcategory = 'S' THEN 'text'
            ELSE 'other'
       END,
       CASE t.typtype
            WHEN 'd' THEN t.typbasetype
            WHEN 'r' THEN (SELECT r.rngsubtype FROM pg_catalog.pg_range r
                            WHERE r.rngtypid = t.oid)
            WHEN 'm' THEN (SELECT r.rngsubtype FROM pg_catalog.pg_range r
                            WHERE pg_catalog.to_jsonb(r) ->> 'rngmultitypid' = t.oid::text)
            ELSE t.typelem
       END,
       (SELECT pg_catalog.string_agg(a.atttypid::int8::text, ',' ORDER BY a.attnum)
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped)
  FROM pg_catalog.pg_type t
 WHERE t.oid IN ($1)
