// The messages of the protocol; families of messages are in files of their own.
package io.rustydb;

import java.util.List;

/**
 * One message of either direction.
 *
 * <p>A type writes itself and its number; {@link #decode} knows all numbers. Both directions are
 * complete, so that the byte vectors can be checked both ways.
 */
sealed interface Message permits HandshakeMessage, AuthMessage, AuthReply, PreparedMessage,
        BulkMessage, StreamingMessage, NotificationMessage, SessionMessage, SimpleRequest,
        SimpleResponse, Message.Query, Message.QueryResponse, Message.StatementInfo,
        Message.Heartbeat, Message.Begin, Message.TransactionStarted, Message.Commit,
        Message.Rollback, Message.Savepoint, Message.Ping, Message.Pong, Message.Ok, Message.Error,
        Message.Cancel, Message.WindowUpdate, Message.Subscribe, Message.Event,
        Message.Unsubscribe, Message.Batch, Message.Extension, Message.Close {

    /** Writes the number and the fields. */
    void write(WireWriter out);

    /** Reads one message, after which nothing may follow. */
    static Message decode(byte[] body) {
        WireReader in = new WireReader(body);
        Message message = read(in);
        in.requireEnd();
        return message;
    }

    private static Message read(WireReader in) {
        int number = in.variant(31, "Message");
        return switch (number) {
            case 0 -> HandshakeMessage.read(in);
            case 1 -> AuthMessage.read(in);
            case 2 -> AuthReply.read(in);
            case 3 -> Query.read(in);
            case 4 -> new QueryResponse(in.u32(), in.list(Column::read),
                    in.list(ValueWire::readRow), in.u64(), in.string(), in.u64(), status(in));
            case 5 -> PreparedMessage.read(in);
            case 6 -> new StatementInfo(
                    in.string(), in.list(WireReader::u32), in.list(Column::read));
            case 7 -> BulkMessage.read(in);
            case 8 -> StreamingMessage.read(in);
            case 9 -> new Heartbeat(in.u64(), in.u32());
            case 10 -> NotificationMessage.read(in);
            case 11 -> new Begin(in.option(it -> it.variant(Isolation.values())),
                    in.option(WireReader::bool), in.option(WireReader::bool));
            case 12 -> new TransactionStarted(in.u64());
            case 13 -> new Commit(in.bool());
            case 14 -> new Rollback(in.option(WireReader::string), in.bool());
            case 15 -> new Savepoint(in.string(), in.bool());
            default -> readSecondHalf(in, number);
        };
    }

    private static Message readSecondHalf(WireReader in, int number) {
        return switch (number) {
            case 16 -> new Ping();
            case 17 -> new Pong();
            case 18 -> new Ok(in.u64(), in.option(WireReader::string), status(in));
            case 19 -> new Error(ErrorBody.read(in));
            case 20 -> new Cancel(in.u64());
            case 21 -> new WindowUpdate(in.u64(), in.u32());
            case 22 -> SessionMessage.read(in);
            case 23 -> new Subscribe(in.string(), in.list(Setting::read));
            case 24 -> new Event(in.string(), in.u64(), in.i64(), in.string());
            case 25 -> new Unsubscribe(in.u64());
            case 26 -> new Batch(in.list(Query::read), in.bool(), in.bool());
            case 27 -> SimpleRequest.read(in);
            case 28 -> SimpleResponse.read(in);
            case 29 -> new Extension(in.string(), in.bytes());
            default -> new Close(in.string());
        };
    }

    private static TransactionStatus status(WireReader in) {
        return in.variant(TransactionStatus.values());
    }

    /** How a query is to run. */
    record Options(long timeoutMs, long maxRows, boolean readOnly, String traceparent,
            String tracestate) {
        static Options read(WireReader in) {
            return new Options(in.u32(), in.u32(), in.bool(), in.option(WireReader::string),
                    in.option(WireReader::string));
        }

        void write(WireWriter out) {
            out.u32(timeoutMs);
            out.u32(maxRows);
            out.bool(readOnly);
            out.option(traceparent, WireWriter::string);
            out.option(tracestate, WireWriter::string);
        }
    }

    /** SQL text to run. */
    record Query(String sql, List<Value> params, List<Long> paramTypes, Options options)
            implements Message {
        static Query read(WireReader in) {
            return new Query(in.string(), in.list(ValueWire::read), in.list(WireReader::u32),
                    in.option(Options::read));
        }

        void writeFields(WireWriter out) {
            out.string(sql);
            out.list(params, ValueWire::write);
            out.list(paramTypes, WireWriter::u32);
            out.option(options, (to, it) -> it.write(to));
        }

        @Override
        public void write(WireWriter out) {
            out.variant(3);
            writeFields(out);
        }
    }

    /** The rows of one statement, or a part of them. */
    record QueryResponse(long statementIndex, List<Column> columns, List<List<Value>> rows,
            long affectedRows, String commandTag, long executionTimeUs,
            TransactionStatus transactionStatus) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(4);
            out.u32(statementIndex);
            out.list(columns, (to, column) -> column.write(to));
            out.list(rows, ValueWire::writeRow);
            out.u64(affectedRows);
            out.string(commandTag);
            out.u64(executionTimeUs);
            out.variant(transactionStatus);
        }
    }

    /** What is known about a prepared statement. */
    record StatementInfo(String name, List<Long> paramTypes, List<Column> columns)
            implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(6);
            out.string(name);
            out.list(paramTypes, WireWriter::u32);
            out.list(columns, (to, column) -> column.write(to));
        }
    }

    /** A sign of life. */
    record Heartbeat(long sentAtUs, long pending) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(9);
            out.u64(sentAtUs);
            out.u32(pending);
        }
    }

    /** Opens a transaction; null leaves the choice to the session's defaults. */
    record Begin(Isolation isolation, Boolean readOnly, Boolean deferrable) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(11);
            out.option(isolation, WireWriter::variant);
            out.option(readOnly, WireWriter::bool);
            out.option(deferrable, WireWriter::bool);
        }
    }

    /** The transaction is open. */
    record TransactionStarted(long transactionId) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(12);
            out.u64(transactionId);
        }
    }

    /** Commits. */
    record Commit(boolean andChain) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(13);
            out.bool(andChain);
        }
    }

    /** Rolls back, to a savepoint if one is named. */
    record Rollback(String toSavepoint, boolean andChain) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(14);
            out.option(toSavepoint, WireWriter::string);
            out.bool(andChain);
        }
    }

    /** Sets or releases a savepoint. */
    record Savepoint(String name, boolean release) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(15);
            out.string(name);
            out.bool(release);
        }
    }

    /** Asks whether the other side is there. */
    record Ping() implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(16);
        }
    }

    /** It is. */
    record Pong() implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(17);
        }
    }

    /** Done, without rows. */
    record Ok(long affectedRows, String commandTag, TransactionStatus transactionStatus)
            implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(18);
            out.u64(affectedRows);
            out.option(commandTag, WireWriter::string);
            out.variant(transactionStatus);
        }
    }

    /** Failed. */
    record Error(ErrorBody value) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(19);
            value.write(out);
        }
    }

    /** Cancels another request. */
    record Cancel(long target) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(20);
            out.u64(target);
        }
    }

    /** Gives credit back; stream 0 is the connection. */
    record WindowUpdate(long stream, long credit) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(21);
            out.u64(stream);
            out.u32(credit);
        }
    }

    /** Subscribes to a stream of events. */
    record Subscribe(String stream, List<Setting> params) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(23);
            out.string(stream);
            out.list(params, Setting::write);
        }
    }

    /** One event of a subscription. */
    record Event(String stream, long sequence, long timeUs, String body) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(24);
            out.string(stream);
            out.u64(sequence);
            out.i64(timeUs);
            out.string(body);
        }
    }

    /** Ends a subscription. */
    record Unsubscribe(long target) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(25);
            out.u64(target);
        }
    }

    /** Several statements at once. */
    record Batch(List<Query> statements, boolean atomic, boolean stopOnError) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(26);
            out.list(statements, (to, query) -> query.writeFields(to));
            out.bool(atomic);
            out.bool(stopOnError);
        }
    }

    /** A message of an extension. */
    record Extension(String name, byte[] payload) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(29);
            out.string(name);
            out.bytes(payload);
        }
    }

    /** Ends the connection after the pending replies. */
    record Close(String reason) implements Message {
        @Override
        public void write(WireWriter out) {
            out.variant(30);
            out.string(reason);
        }
    }
}
