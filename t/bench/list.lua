-- POSTs one body per line of a file, each once and then from the start, and
-- makes a marker file once each has been sent and almost surely answered:
-- twice as many requests later as there are connections.  The requests are
-- made beforehand and answers are not looked at, so that on two cores the
-- load costs little of what is measured.  (wrk sleeps its whole duration
-- whatever a thread does, so that the caller watches for the marker.)
-- args: file, token, marker, connections
local requests, i, last, marker = {}, 0, 0, nil

function init(args)
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    wrk.headers["Authorization"] = "Bearer " .. args[2]
    for line in io.lines(args[1]) do
        requests[#requests + 1] = wrk.format(nil, nil, nil, line)
    end
    marker = args[3]
    last = #requests + 2 * tonumber(args[4])
end

function request()
    i = i + 1
    if i == last then
        io.open(marker, "w"):close()
    end
    return requests[(i - 1) % #requests + 1]
end
