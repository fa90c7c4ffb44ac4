-- Makes a role ($1) or changes it, with what it allows ($2), forbids ($3) and inherits from ($4).
INSERT INTO rustydb.roles (name) VALUES ($1)
    ON CONFLICT (name) DO UPDATE SET updated_at = now();
DELETE FROM rustydb.role_permissions WHERE role = $1;
DELETE FROM rustydb.role_inheritance WHERE role = $1;
INSERT INTO rustydb.role_permissions (role, permission)
SELECT DISTINCT $1, p FROM json_array_elements_text($2::json) p;
INSERT INTO rustydb.role_permissions (role, permission, is_denied)
SELECT DISTINCT $1, p, true FROM json_array_elements_text($3::json) p;
INSERT INTO rustydb.role_inheritance (role, inherits_from)
SELECT DISTINCT $1, p FROM json_array_elements_text($4::json) p
