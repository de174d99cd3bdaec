# run.sh dev|prod: a CATALINA_BASE of this instance alone, made anew at each start, then Tomcat in it. Two
# instances of the site may run for a while when it is updated; each holds the lock of its own directory.
set -eu
skel=/usr/share/tomcat10/skel/conf
for number in 0 1 2 3; do
    base=/data/tomcat/$number
    exec 9>"$base.lock"
    flock -n 9 && break
done
rm -rf "$base"
mkdir -p "$base/conf" "$base/lib" "$base/logs" "$base/temp" "$base/webapps" "$base/work"
ln -s "$skel/catalina.properties" "$base/conf/"
for name in server.xml context.xml logging.properties; do
    ln -s "/config/tomcat/$name" "$base/conf/"
done
if [ "$1" = prod ]; then
    # Pages are compiled once and not looked at again.
    sed '/<servlet-class>org.apache.jasper.servlet.JspServlet<\/servlet-class>/a \
        <init-param><param-name>development</param-name><param-value>false</param-value></init-param>' \
        "$skel/web.xml" >"$base/conf/web.xml"
else
    ln -s "$skel/web.xml" "$base/conf/"
fi
for jar in /usr/share/java/postgresql.jar /usr/share/java/mariadb-java-client.jar; do
    if [ -e "$jar" ]; then
        ln -s "$jar" "$base/lib/"
    fi
done

set -- /site/current/*.war
if [ ! -e "$1" ]; then
    ln -s /site/current "$base/webapps/ROOT"
elif [ $# = 1 ]; then
    ln -s "$1" "$base/webapps/ROOT.war"
else
    ln -s "$@" "$base/webapps/"
fi

export CATALINA_BASE="$base" CATALINA_HOME=/usr/share/tomcat10 CATALINA_TMPDIR="$base/temp"
JAVA_HOME=$(echo /usr/lib/jvm/java-17-openjdk-*)
export JAVA_HOME
cd "$base"
exec sh "$CATALINA_HOME/bin/catalina.sh" run
