%% Runs traces on OTP's own supervisor and prints what happened, one line for each event.
%% Usage: erl -noshell -run otp_traces main FILE; FILE holds one term for each trace:
%%   {Strategy, Intensity, AutoShutdown, [{Id, Restart, Significant}], [Operation]}.
-module(otp_traces).
-export([main/1, init/1, start_child/1]).
-behaviour(supervisor).

main([File]) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    ets:new(log, [named_table, public, ordered_set]),
    ets:new(fails, [named_table, public]),
    {ok, Traces} = file:consult(File),
    lists:foreach(fun trace/1, Traces),
    halt().

init(Spec) -> {ok, Spec}.

spec({Id, Restart, Significant}) ->
    #{id => Id, start => {?MODULE, start_child, [Id]}, restart => Restart, significant => Significant}.

note(What) -> ets:insert(log, {erlang:unique_integer([monotonic]), What}).

start_child(Id) ->
    case ets:lookup(fails, Id) of
        [{Id, N}] when N > 0 -> ets:insert(fails, {Id, N - 1}), {error, failed};
        _ ->
            Self = self(),
            Pid = spawn_link(fun() -> process_flag(trap_exit, true), Self ! {up, self()}, loop(Id, Self) end),
            receive {up, Pid} -> ok end,
            note({start, Id}),
            {ok, Pid}
    end.

loop(Id, Sup) ->
    receive
        {leave, Reason} -> exit(Reason);
        {'EXIT', Sup, Reason} -> note({stop, Id}), exit(Reason)
    end.

trace({Strategy, Intensity, Auto, Children, Operations}) ->
    ets:delete_all_objects(log),
    ets:delete_all_objects(fails),
    io:format("trace~n"),
    Flags = #{strategy => Strategy, intensity => Intensity, period => 3600, auto_shutdown => Auto},
    {ok, Sup} = supervisor:start_link(?MODULE, {Flags, [spec(C) || C <- Children]}),
    flush(),
    run(Sup, Operations).

run(Sup, []) ->
    exit(Sup, shutdown),
    receive {'EXIT', Sup, _} -> ok end,
    flush(),
    io:format("done~n");
run(Sup, [Operation | Rest]) ->
    Result = try operation(Sup, Operation) catch exit:_ -> gone end,
    case quiet(Sup) of
        gone ->
            receive {'EXIT', Sup, Reason} -> flush(), io:format("ended ~p~n", [Reason]) end;
        Children ->
            flush(),
            io:format("result ~p~n", [Result]),
            io:format("children~s~n", [[io_lib:format(" ~p:~p", [Id, is_pid(Pid)]) || {Id, Pid, _, _} <- Children]]),
            run(Sup, Rest)
    end.

operation(Sup, {leave, Id, Reason}) ->
    case lists:keyfind(Id, 1, supervisor:which_children(Sup)) of
        {Id, Pid, _, _} when is_pid(Pid) ->
            Ref = monitor(process, Pid),
            case Reason of kill -> exit(Pid, kill); _ -> Pid ! {leave, Reason} end,
            receive {'DOWN', Ref, process, Pid, _} -> ok end,
            left;
        _ -> absent
    end;
operation(_Sup, {fail, Id, N}) -> ets:insert(fails, {Id, N}), set;
operation(Sup, {stop, Id}) -> result(supervisor:terminate_child(Sup, Id));
operation(Sup, {restart, Id}) -> result(supervisor:restart_child(Sup, Id));
operation(Sup, {delete, Id}) -> result(supervisor:delete_child(Sup, Id));
operation(Sup, {start, Child}) -> result(supervisor:start_child(Sup, spec(Child))).

result(ok) -> ok;
result({ok, _}) -> ok;
result({error, already_present}) -> already_present;
result({error, {already_started, _}}) -> already_started;
result({error, running}) -> running;
result({error, restarting}) -> restarting;
result({error, not_found}) -> not_found;
result({error, _}) -> start_failed.

%% The children once nothing is being restarted.
quiet(Sup) ->
    timer:sleep(1),
    try supervisor:which_children(Sup) of
        Children ->
            case lists:keymember(restarting, 2, Children) of
                true -> quiet(Sup);
                false -> lists:reverse(Children)
            end
    catch exit:_ -> gone
    end.

flush() ->
    [io:format("~p ~p~n", [What, Id]) || {_, {What, Id}} <- ets:tab2list(log)],
    ets:delete_all_objects(log).
