-- What was set in this session, and its open cursors. $1: names of settings with a dot that may be
-- set, as JSON; $2: the role that the session logged in as
SELECT (SELECT coalesce(pg_catalog.json_object_agg(v.name, v.value ORDER BY v.name), '{}'::json)
          FROM (SELECT s.name, pg_catalog.current_setting(s.name) AS value
                  FROM pg_catalog.pg_settings s
                 WHERE s.source = 'session'
                   AND (s.name, s.setting) <> ('application_name', 'rustydb-http')
                UNION ALL
                -- Not listed there: those that nobody has defined, and who the session acts as.
                SELECT c.name, pg_catalog.current_setting(c.name, true)
                  FROM pg_catalog.json_array_elements_text($1::json) AS c (name)
                 WHERE pg_catalog.current_setting(c.name, true) <> ''
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_settings s
                                    WHERE pg_catalog.lower(s.name) = c.name)
                UNION ALL
                SELECT 'role', pg_catalog.current_setting('role')
                 WHERE pg_catalog.current_setting('role') <> 'none'
                UNION ALL
                SELECT 'session_authorization', session_user::text
                 WHERE session_user <> $2::name) v) AS settings,
       pg_catalog.current_setting('search_path') AS search_path,
       (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                   'name', c.name, 'statement', c.statement, 'with_hold', c.is_holdable)
                   ORDER BY c.name), '[]'::json)
          FROM pg_catalog.pg_cursors c
         WHERE c.name <> '') AS cursors
