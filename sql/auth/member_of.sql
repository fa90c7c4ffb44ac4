-- The roles that a role ($1) is a member of, itself included, whatever a superuser may do.
WITH RECURSIVE member AS (
    SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1
    UNION
    SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN member ON m.member = member.oid
)
SELECT r.rolname FROM pg_catalog.pg_roles r JOIN member USING (oid) LIMIT 1000
