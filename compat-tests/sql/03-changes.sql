-- INSERT, UPDATE, DELETE, MERGE, TRUNCATE, ON CONFLICT, RETURNING, COPY.
create temp table target (id int primary key, n int default 7, t text);
insert into target values (1, 1, 'a'), (2, default, null) returning *;
insert into target values (1, 5, 'again') on conflict (id) do update set n = excluded.n + target.n returning *;
insert into target values (1, 5) on conflict do nothing;
insert into target (id) select generate_series(3, 5) returning id;
update target set n = n * 2, t = coalesce(t, 'none') where id < 3 returning id, n, t;
update target as a set t = b.t from target b where b.id = a.id - 1 returning a.id, a.t;
delete from target using (values (5)) v (id) where target.id = v.id returning *;
merge into target t using (values (1, 100), (9, 900)) s (id, n) on t.id = s.id when matched then update set n = s.n when not matched then insert values (s.id, s.n);
select * from target order by id;
copy target from stdin;
20	1	copied
21	\N	\N
\.
copy target from stdin (format csv, header, force_null (t));
id,n,t
22,2,"quoted ""text"""
23,3,""
\.
copy target (id, t) to stdout (format csv, header, quote '''', force_quote *);
copy target from stdin;
1	1	duplicate
\.
copy (select id, t from target where id > 20 order by id) to stdout with (format text, null 'NIL', delimiter '|');
truncate target restart identity;
select count(*) from target;
insert into target values (1), (1);
insert into target values ('x');
