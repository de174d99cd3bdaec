<%@ page contentType="text/html; charset=UTF-8" session="false" %><!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Tomcat</title>
<style>
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 15vh auto; padding: 0 1.5rem; color: #222 }
  p { color: #555 }
</style>
<h1>Tomcat</h1>
<p>This site is running on Java <%= Runtime.version().feature() %>. Send it a war to replace this page.</p>
<p lang="fr">Ce site fonctionne avec Java <%= Runtime.version().feature() %>. Envoyez-lui un war pour remplacer cette page.</p>
</html>
