-- Every role of RustyDB that was made, with what it allows, forbids and inherits.
SELECT name, 'role' AS kind, '' AS value FROM rustydb.roles
UNION ALL
SELECT role, CASE WHEN is_denied THEN 'deny' ELSE 'allow' END, permission
  FROM rustydb.role_permissions
UNION ALL
SELECT role, 'inherit', inherits_from FROM rustydb.role_inheritance
ORDER BY name, kind, value
