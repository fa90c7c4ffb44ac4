-- Settings of PostgreSQL with where their values come from; $1 = only these, a JSON array, if given.
-- Those of this session are not shown: their values are those of everybody.
SELECT name, coalesce(reset_val, setting) AS value, unit, category, short_desc AS description,
       context, CASE WHEN source IN ('client', 'session') THEN 'default' ELSE source END AS source,
       pending_restart AS restart_pending,
       context IN ('postmaster', 'internal') AS restart_required
  FROM pg_catalog.pg_settings
 WHERE $1::json IS NULL OR name IN (SELECT json_array_elements_text($1::json))
 ORDER BY name
