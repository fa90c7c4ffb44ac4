create table people (id int primary key, name text not null, age int check (age >= 0), boss int references people, constraint people_name_once unique (name))
insert into people values (1, 'Ada', 36, null), (2, 'Grace', 85, 1)
create table things (id serial primary key, n numeric, t text, b bytea, j jsonb, at timestamptz)
create type mood as enum ('sad', 'ok', 'happy')
create domain small as int check (value < 10)
create function complain(text) returns int language plpgsql as $$ begin raise exception 'no %', $1 using errcode = 'AB123', detail = 'the detail', hint = 'the hint', column = 'c', table = 't', schema = 's', datatype = 'd', constraint = 'k'; end $$
create function chat(text) returns text language plpgsql as $$ begin raise notice 'hello %', $1 using hint = 'a hint'; raise warning 'careful, %', $1 using errcode = '01234'; raise info 'only you see this'; return upper($1); end $$
create schema other
create table other.people (id int primary key, name text)
insert into other.people values (7, 'from the other schema')
