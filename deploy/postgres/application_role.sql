-- Creates the role of the program. The image runs this file once, as the superuser, when it creates the database.
-- The role owns its database, so it can create and upgrade the tables and restore a backup. It has no other rights.
\set password `cat /run/secrets/database_password`
CREATE ROLE smt LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
ALTER DATABASE smt OWNER TO smt;
REVOKE ALL ON DATABASE smt FROM PUBLIC;
