-- The administrator and its database, on the first start of the embedded PostgreSQL; $1 is
-- replaced by the quoted verifier of its password.
CREATE ROLE rustydb LOGIN SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS PASSWORD $1
