-- What turns the values of a type into JSON, by the list of their numbers that is put in.
SELECT t.oid,
       t.typname,
       CASE WHEN t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A' THEN 'array'
            WHEN t.typtype = 'd' THEN 'domain'
            WHEN t.typtype = 'c' THEN 'composite'
            ELSE 'other'
       END,
       CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END,
       (SELECT e.typdelim FROM pg_catalog.pg_type e WHERE e.oid = t.typelem),
       (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attname, a.atttypid::int8)
                                   ORDER BY a.attnum)
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped)
  FROM pg_catalog.pg_type t
 WHERE t.oid IN ($1)
