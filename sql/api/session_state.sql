-- What was set in this session, and its open cursors
SELECT (SELECT coalesce(pg_catalog.json_object_agg(s.name, pg_catalog.current_setting(s.name)
                                                   ORDER BY s.name), '{}'::json)
          FROM pg_catalog.pg_settings s
         WHERE s.source = 'session'
           AND (s.name, s.setting) <> ('application_name', 'rustydb-http')) AS settings,
       pg_catalog.current_setting('search_path') AS search_path,
       (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                   'name', c.name, 'statement', c.statement, 'with_hold', c.is_holdable)
                   ORDER BY c.name), '[]'::json)
          FROM pg_catalog.pg_cursors c
         WHERE c.name <> '') AS cursors
