// pgx v5: a program that uses what the driver has, and tells what it saw.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	. "rustydb.example/drivers/common"
)

var ctx = context.Background()

var modes = map[string]pgx.QueryExecMode{
	"statement": pgx.QueryExecModeCacheStatement,
	"describe":  pgx.QueryExecModeCacheDescribe,
	"each":      pgx.QueryExecModeDescribeExec,
	"exec":      pgx.QueryExecModeExec,
	"simple":    pgx.QueryExecModeSimpleProtocol,
}

var modeNames = []string{"statement", "describe", "each", "exec", "simple"}

func connect(change func(*pgx.ConnConfig)) *pgx.Conn {
	config, err := pgx.ParseConfig(Where("", ""))
	Must(err)
	if change != nil {
		change(config)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	Must(err)
	return conn
}

// describe is everything that PostgreSQL said about an error.
func describe(err error) any {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		said := *pg
		said.File, said.Line, said.Routine = "", 0, ""
		return fmt.Sprintf("%+v", said)
	}
	if pgconn.Timeout(err) {
		return "a time-out"
	}
	return "not from PostgreSQL"
}

type querier interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}

func rows(on querier, sql string, arguments ...any) (any, error) {
	result, err := on.Query(ctx, sql, arguments...)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(result, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		return fmt.Sprintf("%+v", values), err
	})
	return []any{result.CommandTag().String(), all}, err
}

func attempt(what, sql string, on querier, arguments ...any) {
	said, err := rows(on, sql, arguments...)
	if err != nil {
		Say(what, "->", describe(err))
	} else {
		Say(what, "->", said)
	}
}

func exec(conn *pgx.Conn, sql string, arguments ...any) {
	_, err := conn.Exec(ctx, sql, arguments...)
	Must(err)
}

func checkValues(conn *pgx.Conn) {
	Section("values")
	for _, line := range Cases("values.txt") {
		kind, literal, _ := strings.Cut(line, "\t")
		quoted := strings.ReplaceAll(literal, "'", "''")
		for _, mode := range modeNames[:3] {
			attempt(line, fmt.Sprintf("select '%s'::%s", quoted, kind), conn, modes[mode])
		}
		attempt("back", fmt.Sprintf("select ($1::text::%s)::text", kind), conn, literal)
	}
	zone := time.FixedZone("", 19800)
	sent := map[string]any{
		"timestamptz": time.Date(2024, 3, 31, 1, 30, 0, 7000, zone),
		"numeric":     pgtype.Numeric{Int: big.NewInt(7), Exp: -40, Valid: true},
		"interval":    pgtype.Interval{Microseconds: 7, Days: -3, Months: 1, Valid: true},
		"uuid":        [16]byte{15: 5},
		"jsonb":       map[string]any{"a": []any{1, nil}},
		"int4[]":      []int32{1, 2, 3},
		"text[]":      []string{"a", "NULL", "b c"},
		"bytea":       []byte{0, 255},
		"bool":        nil,
		"int4range":   pgtype.Range[pgtype.Int4]{Valid: true, LowerType: 'E', UpperType: 'E'},
	}
	for _, kind := range []string{"timestamptz", "numeric", "interval", "uuid", "jsonb", "int4[]",
		"text[]", "bytea", "bool", "int4range"} {
		for _, mode := range modeNames[:3] {
			sql := fmt.Sprintf("select ($1::%s)::text", kind)
			attempt(kind+" in "+mode, sql, conn, modes[mode], sent[kind])
		}
	}
}

func checkTransactions(conn *pgx.Conn) {
	Section("transactions")
	count := "select count(*) from people"
	levels := []pgx.TxIsoLevel{pgx.Serializable, pgx.RepeatableRead, pgx.ReadCommitted}
	for _, level := range levels {
		options := pgx.TxOptions{IsoLevel: level, AccessMode: pgx.ReadWrite}
		Must(pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
			attempt("level", "show transaction_isolation", tx)
			attempt("insert", "insert into people values (11, 'Barbara', 80, 1)", tx)
			inner, err := tx.Begin(ctx)
			Must(err)
			attempt("twice", "insert into people values (11, 'Barbara', 80, 1)", inner)
			attempt("aborted", count, inner)
			Must(inner.Rollback(ctx))
			attempt("count", count, tx)
			attempt("delete", "delete from people where id = 11", tx)
			return nil
		}))
	}
	tx, err := conn.Begin(ctx)
	Must(err)
	attempt("insert", "insert into people values (10, 'Edsger', 72, null)", tx)
	Must(tx.Rollback(ctx))
	attempt("rolled back", count, conn)
	tx, err = conn.Begin(ctx)
	Must(err)
	attempt("broken", "select 1 / 0", tx)
	Say("commit", describe(tx.Commit(ctx)), string(conn.PgConn().TxStatus()))
	tx, err = conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	Must(err)
	attempt("read only", "delete from people", tx)
	Must(tx.Rollback(ctx))
}

func checkPrepared() {
	Section("prepared statements")
	for _, mode := range modeNames {
		conn := connect(func(config *pgx.ConnConfig) {
			config.StatementCacheCapacity = 20
			config.DescriptionCacheCapacity = 20
			config.DefaultQueryExecMode = modes[mode]
		})
		for turn := range 3 {
			for n := range 60 {
				tx, err := conn.Begin(ctx)
				Must(err)
				sql := fmt.Sprintf("select %d + $1::int, name from people where id = $2::int", n)
				attempt(mode, sql, tx, turn, 1+n%2)
				Must(tx.Commit(ctx))
			}
		}
		exec(conn, "create table shape (a int)")
		exec(conn, "insert into shape values (1)")
		attempt("shape", "select * from shape", conn)
		exec(conn, "alter table shape add b text default 'new'")
		attempt("a changed table", "select * from shape", conn)
		attempt("again", "select * from shape", conn)
		exec(conn, "drop table shape")
		attempt("a wrong value", "select $1::text::int", conn, "x")
		attempt("then", "select $1::text::int", conn, "5")
		Must(conn.Close(ctx))
	}
	conn := connect(nil)
	for n := range 120 {
		_, err := conn.Prepare(ctx, fmt.Sprintf("name %d", n), fmt.Sprintf("select %d + $1::int", n))
		Must(err)
	}
	for turn := range 3 {
		for n := range 120 {
			attempt("named", fmt.Sprintf("name %d", n), conn, turn)
		}
	}
	statement, err := conn.Prepare(ctx, "typed", "select $1::text as a, $2::int4 as b")
	Must(err)
	Say(statement.ParamOIDs, len(statement.Fields), statement.Fields[0].Name)
	Must(conn.Deallocate(ctx, "typed"))
	_, err = conn.Prepare(ctx, "bad", "select nope")
	Say("bad", describe(err))
	Must(conn.DeallocateAll(ctx))
	attempt("after all are gone", "select $1::int", conn, 5)
	Must(conn.Close(ctx))
}

func checkSession() {
	Section("session")
	for _, mode := range []string{"exec", "simple"} {
		conn := connect(func(config *pgx.ConnConfig) { config.DefaultQueryExecMode = modes[mode] })
		for _, sql := range Cases("session.sql") {
			attempt(sql, sql, conn)
		}
		for _, name := range []string{"TimeZone", "DateStyle", "application_name", "server_version"} {
			Say(name, conn.PgConn().ParameterStatus(name))
		}
		Must(conn.Close(ctx))
	}
	conn := connect(func(config *pgx.ConnConfig) {
		config.RuntimeParams["search_path"] = "other"
		config.RuntimeParams["application_name"] = "of its own"
	})
	attempt("start-up", "select * from people", conn)
	attempt("start-up", "show application_name", conn)
	exec(conn, "set search_path = public")
	exec(conn, "reset all")
	attempt("reset", "show search_path", conn)
	Must(conn.Close(ctx))
}

func checkBatches(conn *pgx.Conn) {
	Section("batches")
	for _, mode := range modeNames {
		conn := connect(func(config *pgx.ConnConfig) { config.DefaultQueryExecMode = modes[mode] })
		batch := &pgx.Batch{}
		for n := range 300 {
			batch.Queue("select $1::int * 2", n)
		}
		results := conn.SendBatch(ctx, batch)
		sum := 0
		for range 300 {
			var value int
			Must(results.QueryRow().Scan(&value))
			sum += value
		}
		Must(results.Close())
		batch = &pgx.Batch{}
		batch.Queue("insert into things (t) values ('in a batch')")
		batch.Queue("select 1 / 0")
		batch.Queue("select 1")
		Say(mode, sum, describe(conn.SendBatch(ctx, batch).Close()))
		attempt("nothing of it", "select count(*) from things", conn)
		Must(conn.Close(ctx))
	}
	raw := conn.PgConn()
	pipeline := raw.StartPipeline(ctx)
	pipeline.SendPrepare("piped", "select $1::text || '!'", nil)
	for n := range 100 {
		pipeline.SendQueryPrepared("piped", [][]byte{[]byte(fmt.Sprint(n))}, nil, nil)
		if n%10 == 9 {
			Must(pipeline.Sync())
		}
	}
	pipeline.SendQueryParams("select 1 / $1::int", [][]byte{[]byte("0")}, nil, nil, nil)
	pipeline.SendQueryPrepared("piped", [][]byte{[]byte("skipped")}, nil, nil)
	Must(pipeline.Sync())
	pipeline.SendQueryPrepared("piped", [][]byte{[]byte("after it")}, nil, nil)
	Must(pipeline.Sync())
	for {
		result, err := pipeline.GetResults()
		if result == nil && err == nil {
			break
		}
		switch result := result.(type) {
		case *pgconn.ResultReader:
			read := result.Read()
			Say("piped", fmt.Sprintf("%s", read.Rows), read.CommandTag.String(), describe(read.Err))
		default:
			Say(fmt.Sprintf("%T", result), describe(err))
		}
	}
	Must(pipeline.Close())
	many, err := raw.Exec(ctx, "select 1; select 2, 3; select 1 / 0; select 4").ReadAll()
	Say(len(many), describe(err))
}

func checkCursors(conn *pgx.Conn) {
	Section("cursors")
	tx, err := conn.Begin(ctx)
	Must(err)
	attempt("declare", "declare c scroll cursor for select generate_series(1, 50)", tx)
	for _, sql := range []string{"fetch 3 from c", "fetch last from c", "fetch -2 from c", "close c"} {
		attempt(sql, sql, tx)
	}
	Must(tx.Commit(ctx))
	found, err := conn.Query(ctx, "select generate_series(1, 100000)")
	Must(err)
	found.Next()
	found.Close()
	attempt("given up", "select 'still here'", conn)
}

func checkCopy(conn *pgx.Conn) {
	Section("copy")
	exec(conn, "create table copied (id int, name text, at timestamptz)")
	when := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	copied, err := conn.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id", "name", "at"},
		pgx.CopyFromSlice(5000, func(n int) ([]any, error) {
			return []any{n, fmt.Sprintf("n\t%d", n), when}, nil
		}))
	Say(copied, describe(err))
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id"},
		pgx.CopyFromSlice(3, func(n int) ([]any, error) { return nil, errors.New("no more") }))
	Say("given up", describe(err))
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"nowhere"}, []string{"id"}, pgx.CopyFromRows(nil))
	Say("nowhere", describe(err))
	var out bytes.Buffer
	tag, err := conn.PgConn().CopyTo(ctx, &out, "copy (select * from copied order by id) to stdout")
	Say(tag.String(), describe(err), Digest(out.Bytes()))
	_, err = conn.PgConn().CopyTo(ctx, &out, "copy nowhere to stdout")
	Say("nowhere", describe(err))
	in := strings.NewReader("x\ty\n")
	_, err = conn.PgConn().CopyFrom(ctx, in, "copy copied from stdin")
	Say("malformed", describe(err))
	attempt("count", "select count(*), sum(id) from copied", conn)
	exec(conn, "drop table copied")
}

func checkErrors(conn *pgx.Conn) {
	Section("errors")
	for _, sql := range Cases("errors.sql") {
		for _, mode := range modeNames {
			attempt(sql, sql, conn, modes[mode])
		}
	}
	attempt("then", "select 'still here'", conn)
}

func checkNotices() {
	Section("notices")
	conn := connect(func(config *pgx.ConnConfig) {
		config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
			Say("notice", notice.Severity, notice.Code, notice.Message, notice.Hint, notice.Where)
		}
	})
	attempt("chat", "select chat($1)", conn, "you")
	exec(conn, "drop table if exists never_there")
	Must(conn.Close(ctx))
}

func checkNotify(sender *pgx.Conn) {
	Section("notifications")
	listener := connect(nil)
	said := func() {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		notification, err := listener.WaitForNotification(limited)
		Must(err)
		Say(notification.Channel, notification.Payload)
	}
	exec(listener, "listen news")
	exec(listener, `listen "Other News"`)
	exec(sender, "notify news, 'one'")
	said()
	exec(sender, "select pg_notify('Other News', $1)", "two é")
	said()
	exec(sender, "begin")
	exec(sender, "notify news, 'never'")
	exec(sender, "rollback")
	exec(listener, "notify news, 'to myself'")
	said()
	attempt("channels", "select * from pg_listening_channels()", listener)
	exec(listener, "unlisten news")
	exec(sender, "notify news, 'unheard'")
	exec(sender, `notify "Other News", 'heard'`)
	said()
	Must(listener.Close(ctx))
}

func checkCancel(conn *pgx.Conn) {
	Section("cancel")
	for _, begin := range []bool{false, true} {
		if begin {
			exec(conn, "begin")
		}
		done := make(chan error)
		go func() {
			time.Sleep(300 * time.Millisecond)
			done <- conn.PgConn().CancelRequest(ctx)
		}()
		attempt("cancelled", "select pg_sleep(30)", conn)
		Say(describe(<-done), string(conn.PgConn().TxStatus()))
		if begin {
			exec(conn, "rollback")
		}
	}
	exec(conn, "set statement_timeout = '200ms'")
	attempt("timed out", "select pg_sleep(30)", conn)
	exec(conn, "reset statement_timeout")
	attempt("then", "select 'still here'", conn)
	impatient := connect(nil)
	limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := impatient.Exec(limited, "select pg_sleep(30)")
	Say("a deadline", describe(err), impatient.IsClosed())
}

func checkBig(conn *pgx.Conn) {
	Section("big values")
	for _, size := range []int{1 << 20, 20 << 20} {
		text := strings.Repeat("0123456789abcdef", size/16)
		attempt("sent", "select length($1::text), md5($1::text)", conn, text)
		var back []byte
		data := bytes.Repeat([]byte("rustydb!"), size/8)
		Must(conn.QueryRow(ctx, "select $1::bytea", data).Scan(&back))
		Say(Digest(back))
	}
	found, err := conn.Query(ctx, "select md5(i::text) from generate_series(1, 50000) i")
	Must(err)
	many, err := pgx.CollectRows(found, pgx.RowTo[string])
	Must(err)
	Say(Digest([]byte(strings.Join(many, ""))))
}

// oneOfMany must see what it set itself and nothing of the others.
func oneOfMany(pool *pgxpool.Pool, number int) (seen []any) {
	conn, err := pool.Acquire(ctx)
	Must(err)
	defer conn.Release()
	see := func(sql string, arguments ...any) {
		said, err := rows(conn, sql, arguments...)
		if err != nil {
			said = err.(*pgconn.PgError).Code
		}
		seen = append(seen, said)
	}
	see(fmt.Sprintf("set time zone '%s'", Zone(number)))
	see(fmt.Sprintf("set my.number = %d", number))
	see("set search_path = " + SchemaOf(number))
	see(fmt.Sprintf("prepare mine as select %d", number))
	temporary := number%8 == 0
	if temporary {
		see(fmt.Sprintf("create temporary table mine as select %d as n", number))
	}
	for turn := range 5 {
		see("begin")
		see("show timezone")
		see("show my.number")
		see("select name from people order by id limit 1")
		see("commit")
		see("execute mine")
		see("select $1::int + $2::int", number, turn)
		see("select to_regclass('mine') is null")
		if temporary {
			see("select * from mine")
		}
		see("select 1 / 0")
		see("select name from pg_prepared_statements where statement like 'prepare%' order by 1")
	}
	see("deallocate mine")
	see("discard temp")
	see("reset all")
	return seen
}

func checkMany() {
	Section("many clients")
	config, err := pgxpool.ParseConfig(Where("", ""))
	Must(err)
	config.MaxConns = int32(Clients())
	pool, err := pgxpool.NewWithConfig(ctx, config)
	Must(err)
	defer pool.Close()
	seen := make([][]any, Clients())
	var group sync.WaitGroup
	for number := range seen {
		group.Add(1)
		go func() {
			defer group.Done()
			seen[number] = oneOfMany(pool, number)
		}()
	}
	group.Wait()
	for number, seen := range seen {
		Say(number, seen)
	}
}

func checkReconnect(other *pgx.Conn) {
	Section("reconnect")
	for _, busy := range []bool{true, false} {
		conn := connect(nil)
		exec(conn, "begin")
		var pid int
		Must(conn.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid))
		done := make(chan error)
		go func() {
			if busy {
				time.Sleep(300 * time.Millisecond)
			}
			_, err := other.Exec(ctx, "select pg_terminate_backend($1)", pid)
			done <- err
		}()
		if !busy {
			Must(<-done)
			time.Sleep(200 * time.Millisecond)
		}
		attempt("terminated", "select pg_sleep(30)", conn)
		if busy {
			Must(<-done)
		}
		Say(conn.IsClosed())
		attempt("closed", "select 1", conn)
		again := connect(nil)
		attempt("again", "select 'a new one works'", again)
		Must(again.Close(ctx))
	}
	conn := connect(nil)
	attempt("by itself", "select pg_terminate_backend(pg_backend_pid())", conn)
	attempt("other", "select 'the other one too'", other)
	_, err := pgx.Connect(ctx, Where("nosuch", ""))
	Say("no such database", describe(err))
}

func main() {
	conn := connect(nil)
	for _, sql := range Cases("schema.sql") {
		exec(conn, sql)
	}
	checkValues(conn)
	checkTransactions(conn)
	checkPrepared()
	checkSession()
	checkBatches(conn)
	checkCursors(conn)
	checkCopy(conn)
	checkErrors(conn)
	checkNotices()
	checkNotify(conn)
	checkCancel(conn)
	checkBig(conn)
	checkMany()
	checkReconnect(conn)
	Must(conn.Close(ctx))
	Section("end")
}
